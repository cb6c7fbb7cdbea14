"""DINOv3 and dino.txt spelled out in float64 from the names of their weights.

Nothing here uses the package or timm: rotations are complex factors, resampling is a matrix.
Shape legend: B images or T prompts, h x w patches, N tokens, D width; heads of 64 channels.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.backbones.resampling_reference import cubic

TEXT_NAMES = {
    "norm1": "attention_norm", "attn": "attention", "norm2": "ffn_norm", "mlp": "feed_forward",
}  # fmt: skip
"""The parts of a block, mapped to their names in the text tower."""


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
    """Attend with 64 channels per head; the last tokens' queries and keys are `turned`."""
    heads = []
    q_all, k_all, v_all = linear(x, state, f"{name}.qkv").chunk(3, dim=-1)
    for first in range(0, x.shape[-1], 64):
        q, k, v = (part[..., first : first + 64] for part in (q_all, k_all, v_all))
        if turned is not None:
            q, k = turn(q, turned), turn(k, turned)
        scores = q @ k.transpose(1, 2) / 8
        if causal:
            later = torch.ones(scores.shape[1:]).triu(1).bool()
            scores = scores.masked_fill(later, -torch.inf)
        heads.append(scores.softmax(-1) @ v)
    return linear(torch.cat(heads, dim=-1), state, f"{name}.proj")


def turn(x: Tensor, turned: Tensor) -> Tensor:
    """Turn the last tokens of a head `(B, N, 64)`: channels c and c + 32 are a complex number."""
    prefix, patches = x[:, : -len(turned)], x[:, -len(turned) :]
    pairs = torch.complex(patches[..., :32], patches[..., 32:]) * turned
    return torch.cat([prefix, torch.cat([pairs.real, pairs.imag], dim=-1)], dim=1)


def feed_forward(x: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    """Widen and narrow tokens: through GELU, or through a SiLU gate if there is a third matrix."""
    if f"{name}.w3.weight" in state:
        gate = linear(x, state, f"{name}.w1")
        passed = gate * torch.sigmoid(gate) * linear(x, state, f"{name}.w2")
        return linear(passed, state, f"{name}.w3")
    hidden = linear(x, state, f"{name}.fc1")
    return linear(hidden * (1 + torch.erf(hidden / 2**0.5)) / 2, state, f"{name}.fc2")


def through_blocks(
    x: Tensor,
    state: Mapping[str, Tensor],
    prefix: str,
    *,
    turned: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Pass tokens through every block under a prefix, input side first; not all have scales."""
    found = {int(name[len(prefix) :].split(".")[0]) for name in state if name.startswith(prefix)}
    for name in (f"{prefix}{index}" for index in sorted(found)):
        normed = norm(x, state, f"{name}.norm1")
        mixed = attention(normed, state, f"{name}.attn", turned=turned, causal=causal)
        x = x + state.get(f"{name}.ls1.gamma", 1) * mixed
        hidden = feed_forward(norm(x, state, f"{name}.norm2"), state, f"{name}.mlp")
        x = x + state.get(f"{name}.ls2.gamma", 1) * hidden
    return x


def trunk_tokens(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return all normalised tokens `(B, 5 + h * w, D)` of images with sides in whole patches."""
    state = {name: tensor.double() for name, tensor in state.items()}
    kernel = state["patch_embed.proj.weight"]
    side = kernel.shape[-1]
    grid_hw = images.shape[-2] // side, images.shape[-1] // side
    patches = F.unfold(images.double(), side, stride=side).transpose(1, 2)
    x = patches @ kernel.flatten(1).T + state["patch_embed.proj.bias"]
    prefix = torch.cat([state["cls_token"], state["storage_tokens"]], 1)
    x = torch.cat([prefix.expand(len(x), -1, -1), x], 1)
    x = through_blocks(x, state, "blocks.", turned=rotations(grid_hw))
    return norm(x, state, "norm")


def head_tokens(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return the output of dino.txt's vision head for a trunk's tokens."""
    state = {name: tensor.double() for name, tensor in state.items()}
    x = through_blocks(x, state, "visual_model.head.blocks.")
    return norm(x, state, "visual_model.head.ln_final")


def features(
    trunk: Mapping[str, Tensor], images: Tensor, head: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Read images `(B, 3, H, W)` of any size to `(B, D, h, w)`, stretched to whole patches."""
    side = trunk["patch_embed.proj.weight"].shape[-1]
    whole = stretched(images, side)
    tokens = trunk_tokens(trunk, whole)
    tokens = tokens if head is None else head_tokens(head, tokens)
    grid_hw = whole.shape[-2] // side, whole.shape[-1] // side
    return tokens[:, 5:].transpose(1, 2).reshape(len(images), -1, *grid_hw)


def stretched(images: Tensor, patch_px: int) -> Tensor:
    """Resample images `(..., H, W)` bicubically to the next multiples of the patch."""
    down, across = (cubic(n, -(-n // patch_px) * patch_px) for n in images.shape[-2:])
    return down @ images.double() @ across.T


def text_halves(state: Mapping[str, Tensor], ids: list[int]) -> tuple[Tensor, Tensor]:
    """Embed one text's ids, which end with the end of text, to its two halves `(D,)`."""
    prefix, plain = "text_model.backbone", dict[str, Tensor]()
    for name, tensor in state.items():
        for part, own in TEXT_NAMES.items():
            name = name.replace(f".{own}.", f".{part}.")
        plain[name] = tensor.double()
    embedded = plain[f"{prefix}.token_embedding.weight"][ids]
    x = (embedded + plain[f"{prefix}.positional_embedding"][: len(ids)])[None]
    x = through_blocks(x, plain, f"{prefix}.blocks.", causal=True)
    last = norm(x, plain, f"{prefix}.ln_final")[0, -1]
    first, second = (plain["text_model.head.linear_projection.weight"] @ last).chunk(2)
    return first, second
