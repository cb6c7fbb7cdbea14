"""DINOv3 and dino.txt spelled out in float64 from the names of their weights; small ones drawn.

Nothing here uses the package or timm: rotations are complex factors, resampling is a matrix.
Shape legend: B images or T prompts, h x w patches, N tokens, D width; two heads of 64 channels.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PATCH_PX, WIDTH, HEADS, DEPTH, HEAD_DEPTH = 8, 128, 2, 3, 2
TEXT_WIDTH, TEXT_DEPTH, WORDS, CONTEXT = 128, 2, 49408, 77
GATED = 384  # two thirds of 4 * 128, up to whole 64s

TRUNK_FILE, TEXT_FILE = "trunk.pth", "dinotxt.pth"
CARD = f"""
plugin: dinov3txt
model: vit_small_patch16_dinov3
patch_px: {PATCH_PX}
image_px: 32
width: {WIDTH}
depth: {DEPTH}
heads: {HEADS}
mlp_ratio: 4.0
channels: {WIDTH}
read_out: patch_tokens
read_outs: [patch_tokens, head_patch_tokens]
prefix_tokens: 5
position_embedding: rope
odd_sides: stretch
mean: [0.485, 0.456, 0.406]
std: [0.229, 0.224, 0.225]
"""


def trunk_shapes(
    width: int = WIDTH, depth: int = DEPTH, patch_px: int = PATCH_PX
) -> dict[str, tuple[int, ...]]:
    """Name the weights of a trunk as Meta's file does."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "storage_tokens": (1, 4, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, patch_px, patch_px),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(depth):
        shapes |= {
            f"blocks.{block}.{name}": shape
            for name, shape in {
                "norm1.weight": (width,),
                "norm1.bias": (width,),
                "attn.qkv.weight": (3 * width, width),
                "attn.proj.weight": (width, width),
                "attn.proj.bias": (width,),
                "ls1.gamma": (width,),
                "norm2.weight": (width,),
                "norm2.bias": (width,),
                "mlp.fc1.weight": (4 * width, width),
                "mlp.fc1.bias": (4 * width,),
                "mlp.fc2.weight": (width, 4 * width),
                "mlp.fc2.bias": (width,),
                "ls2.gamma": (width,),
            }.items()
        }
    return shapes


def dinotxt_shapes(
    width: int, gated: int, head_depth: int, text_width: int, text_depth: int
) -> dict[str, tuple[int, ...]]:
    """Name the weights of dino.txt's vision head and text tower as its file does."""
    head: dict[str, tuple[int, ...]] = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "ls1.gamma": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.w1.weight": (gated, width),
        "mlp.w1.bias": (gated,),
        "mlp.w2.weight": (gated, width),
        "mlp.w2.bias": (gated,),
        "mlp.w3.weight": (width, gated),
        "mlp.w3.bias": (width,),
        "ls2.gamma": (width,),
    }
    text: dict[str, tuple[int, ...]] = {
        "attention_norm.weight": (text_width,),
        "attention_norm.bias": (text_width,),
        "attention.qkv.weight": (3 * text_width, text_width),
        "attention.proj.weight": (text_width, text_width),
        "attention.proj.bias": (text_width,),
        "ffn_norm.weight": (text_width,),
        "ffn_norm.bias": (text_width,),
        "feed_forward.fc1.weight": (4 * text_width, text_width),
        "feed_forward.fc1.bias": (4 * text_width,),
        "feed_forward.fc2.weight": (text_width, 4 * text_width),
        "feed_forward.fc2.bias": (text_width,),
    }
    return {
        "logit_scale": (1,),
        "visual_model.head.ln_final.weight": (width,),
        "visual_model.head.ln_final.bias": (width,),
        "text_model.backbone.token_embedding.weight": (WORDS, text_width),
        "text_model.backbone.positional_embedding": (CONTEXT, text_width),
        "text_model.backbone.ln_final.weight": (text_width,),
        "text_model.backbone.ln_final.bias": (text_width,),
        "text_model.head.linear_projection.weight": (2 * width, text_width),
        **{
            f"visual_model.head.blocks.{i}.{k}": s
            for i in range(head_depth)
            for k, s in head.items()
        },
        **{
            f"text_model.backbone.blocks.{i}.{k}": s
            for i in range(text_depth)
            for k, s in text.items()
        },
    }


def repeated(
    prefix: str, depth: int, block: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Name the weights of so many blocks alike."""
    return {f"{prefix}.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}


def draw(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Draw weights by name: products of unit size; scales around one, so that blocks are felt."""
    generator, state = np.random.default_rng(seed), {}
    for name, shape in sorted(shapes.items()):
        size = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.08
        drawn = np.float32(size) * generator.standard_normal(shape, dtype=np.float32)
        near_one = name.endswith("gamma") or (
            ("norm" in name or "ln_" in name) and "weight" in name
        )
        state[name] = torch.from_numpy(drawn + 1.0 if near_one else drawn)
    return state


def metas(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add what Meta's file holds too: rounded periods, and biases that a mask of zeros hides."""
    zero = {
        name.replace("weight", end): torch.zeros(len(weight))
        for name, weight in trunk.items()
        for end in ("bias", "bias_mask")
        if name.endswith("qkv.weight")
    }
    return {**trunk, **zero, "rope_embed.periods": periods()}


def timms(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a trunk's weights as timm's file has them."""
    new = {"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2", "storage_tokens": "reg_token"}
    renamed = {}
    for name, tensor in trunk.items():
        for old, replacement in new.items():
            name = name.replace(old, replacement)
        renamed[name] = tensor
    return {name: tensor for name, tensor in renamed.items() if name != "mask_token"}


def write(folder: Path, seed: int = 0) -> Path:
    """Write a small backbone as a user has it: data file, key list, and a folder with two files."""
    weights = folder / "weights"
    weights.mkdir(parents=True)
    shapes = dinotxt_shapes(WIDTH, GATED, HEAD_DEPTH, TEXT_WIDTH, TEXT_DEPTH)
    torch.save(metas(draw(trunk_shapes(), seed)), weights / TRUNK_FILE)
    torch.save(draw(shapes, seed + 1), weights / TEXT_FILE)
    (folder / "small.yaml").write_text(CARD)
    listed = ", ".join(f'"{name}": {list(shape)}' for name, shape in shapes.items())
    (folder / "small_keys.json").write_text(f"{{{listed}}}")
    return folder


def periods() -> Tensor:
    """Return the sixteen periods of a head of 64 channels, as rounded in the published files."""
    exact = [100 ** (k / 16) for k in range(16)]
    return torch.tensor(exact, dtype=torch.float64).bfloat16().float()


def rotations(grid_hw: tuple[int, int]) -> Tensor:
    """Return the complex factor of each patch and pair of channels, `(h * w, 32)`.

    Rows turn the first sixteen pairs, columns the others; both run from -1 to 1 over the image,
    read at the middles of patches.
    """
    factors = []
    for row in range(grid_hw[0]):
        for column in range(grid_hw[1]):
            y = 2 * (row + 0.5) / grid_hw[0] - 1
            x = 2 * (column + 0.5) / grid_hw[1] - 1
            turns = torch.cat([y / periods().double(), x / periods().double()])
            factors.append(torch.exp(2j * torch.pi * turns))
    return torch.stack(factors)


def norm(x: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros(()))


def attention(
    x: Tensor,
    state: Mapping[str, Tensor],
    name: str,
    *,
    turned: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Attend with 64 channels a head; the last tokens' queries and keys are `turned`."""
    out = torch.zeros_like(x)
    q_all, k_all, v_all = linear(x, state, f"{name}.qkv").chunk(3, dim=-1)
    for first in range(0, x.shape[-1], 64):
        q, k, v = (part[..., first : first + 64].clone() for part in (q_all, k_all, v_all))
        if turned is not None:
            prefix = x.shape[1] - len(turned)
            for part in (q, k):
                pairs = torch.complex(part[:, prefix:, :32], part[:, prefix:, 32:]) * turned
                part[:, prefix:] = torch.cat([pairs.real, pairs.imag], dim=-1)
        scores = q @ k.transpose(1, 2) / 8
        if causal:
            later = torch.ones(scores.shape[1:]).triu(1).bool()
            scores = scores.masked_fill(later, -torch.inf)
        out[..., first : first + 64] = scores.softmax(-1) @ v
    return linear(out, state, f"{name}.proj")


def blocks(state: Mapping[str, Tensor], prefix: str) -> list[str]:
    """Return the names of the blocks under a prefix, input side first."""
    found = {int(name[len(prefix) :].split(".")[0]) for name in state if name.startswith(prefix)}
    return [f"{prefix}{index}" for index in sorted(found)]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def trunk_tokens(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return all normalised tokens `(B, 5 + h * w, D)` of images with sides of whole patches."""
    state = {name: tensor.double() for name, tensor in state.items()}
    kernel = state["patch_embed.proj.weight"]
    side = kernel.shape[-1]
    grid_hw = images.shape[-2] // side, images.shape[-1] // side
    patches = F.unfold(images.double(), side, stride=side).transpose(1, 2)
    x = patches @ kernel.flatten(1).T + state["patch_embed.proj.bias"]
    prefix = torch.cat([state["cls_token"], state["storage_tokens"]], 1)
    x = torch.cat([prefix.expand(len(x), -1, -1), x], 1)
    turned = rotations(grid_hw)
    for name in blocks(state, "blocks."):
        mixed = attention(norm(x, state, f"{name}.norm1"), state, f"{name}.attn", turned=turned)
        x = x + state[f"{name}.ls1.gamma"] * mixed
        hidden = gelu(linear(norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1"))
        x = x + state[f"{name}.ls2.gamma"] * linear(hidden, state, f"{name}.mlp.fc2")
    return norm(x, state, "norm")


def head_tokens(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return what dino.txt's vision head makes of a trunk's tokens."""
    state = {name: tensor.double() for name, tensor in state.items()}
    for name in blocks(state, "visual_model.head.blocks."):
        mixed = attention(norm(x, state, f"{name}.norm1"), state, f"{name}.attn")
        x = x + state[f"{name}.ls1.gamma"] * mixed
        normed = norm(x, state, f"{name}.norm2")
        gate = linear(normed, state, f"{name}.mlp.w1")
        passed = gate * torch.sigmoid(gate) * linear(normed, state, f"{name}.mlp.w2")
        x = x + state[f"{name}.ls2.gamma"] * linear(passed, state, f"{name}.mlp.w3")
    return norm(x, state, "visual_model.head.ln_final")


def features(
    trunk: Mapping[str, Tensor], images: Tensor, head: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Read images `(B, 3, H, W)` of any size to `(B, D, h, w)`, stretched to whole patches."""
    side = trunk["patch_embed.proj.weight"].shape[-1]
    rows, columns = (-(-length // side) for length in images.shape[-2:])
    down, across = bicubic(images.shape[-2], rows * side), bicubic(images.shape[-1], columns * side)
    tokens = trunk_tokens(trunk, down @ images.double() @ across.T)
    tokens = tokens if head is None else head_tokens(head, tokens)
    return tokens[:, 5:].transpose(1, 2).reshape(len(images), -1, rows, columns)


def bicubic(n_in: int, n_out: int) -> Tensor:
    """Return cubic convolution (a = -0.75) along one axis, `(n_out, n_in)`; borders repeated."""
    matrix = torch.zeros(n_out, n_in, dtype=torch.float64)
    for out in range(n_out):
        centre = (out + 0.5) * n_in / n_out - 0.5
        first = int(np.floor(centre)) - 1
        for place in range(first, first + 4):
            t = abs(centre - place)
            near, far = 1.25 * t**3 - 2.25 * t**2 + 1, -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
            matrix[out, min(max(place, 0), n_in - 1)] += near if t <= 1 else far
    return matrix


def text_halves(state: Mapping[str, Tensor], ids: list[int]) -> tuple[Tensor, Tensor]:
    """Embed one text's ids, which end with the end of text, to its two halves `(D,)`."""
    state = {name: tensor.double() for name, tensor in state.items()}
    prefix = "text_model.backbone"
    table = state[f"{prefix}.token_embedding.weight"]
    x = (table[ids] + state[f"{prefix}.positional_embedding"][: len(ids)])[None]
    for name in blocks(state, f"{prefix}.blocks."):
        normed = norm(x, state, f"{name}.attention_norm")
        x = x + attention(normed, state, f"{name}.attention", causal=True)
        hidden = gelu(linear(norm(x, state, f"{name}.ffn_norm"), state, f"{name}.feed_forward.fc1"))
        x = x + linear(hidden, state, f"{name}.feed_forward.fc2")
    last = norm(x, state, f"{prefix}.ln_final")[0, -1]
    embedded = state["text_model.head.linear_projection.weight"] @ last
    first, second = embedded.chunk(2)
    return first, second
