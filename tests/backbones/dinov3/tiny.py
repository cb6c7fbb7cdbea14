"""DINOv3 and dino.txt in miniature: the names and shapes of their files, with drawn weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spar_bench.backbones.dinov3txt import Backbone as DinoV3Txt
from spar_bench.spec.schema import BackboneSpec
from tests.backbones.dinov3.reference import TEXT_NAMES, periods

Shapes = dict[str, tuple[int, ...]]

PATCH_PX, WIDTH, DEPTH, HEAD_DEPTH = 8, 128, 3, 2  # two heads of 64 channels
TEXT_WIDTH, TEXT_DEPTH, WORDS, CONTEXT = 128, 2, 49408, 77
GATED = 384  # two thirds of 4 * 128, up to whole 64s

TIMMS_NAMES = {"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2", "storage_tokens": "reg_token"}
TRUNK_FILE, TEXT_FILE = "trunk.pth", "dinotxt.pth"
CARD = f"""
plugin: dinov3txt
model: vit_small_patch16_dinov3
patch_px: {PATCH_PX}
image_px: 32
width: {WIDTH}
depth: {DEPTH}
heads: {WIDTH // 64}
mlp_ratio: 4.0
channels: {WIDTH}
read_out: patch_tokens
read_outs: [patch_tokens, head_patch_tokens]
head_depth: {HEAD_DEPTH}
prefix_tokens: 5
position_embedding: rope
odd_sides: stretch
mean: [0.485, 0.456, 0.406]
std: [0.229, 0.224, 0.225]
"""


def trunk_shapes(width: int = WIDTH, depth: int = DEPTH, patch_px: int = PATCH_PX) -> Shapes:
    """Name the weights of a trunk as Meta's file does."""
    return {
        "cls_token": (1, 1, width),
        "storage_tokens": (1, 4, width),
        "mask_token": (1, width),
        **layer("patch_embed.proj", width, 3, patch_px, patch_px),
        **layer("norm", width),
        **blocks("blocks", depth, block(width, plain_mlp(width))),
    }


def dinotxt_shapes(
    width: int = WIDTH,
    gated: int = GATED,
    head_depth: int = HEAD_DEPTH,
    text_width: int = TEXT_WIDTH,
    text_depth: int = TEXT_DEPTH,
) -> Shapes:
    """Name the weights of dino.txt's vision head and text tower as its file does."""
    head, text = "visual_model.head", "text_model.backbone"
    return {
        "logit_scale": (1,),
        **layer(f"{head}.ln_final", width),
        **blocks(f"{head}.blocks", head_depth, block(width, gated_mlp(width, gated))),
        f"{text}.token_embedding.weight": (WORDS, text_width),
        f"{text}.positional_embedding": (CONTEXT, text_width),
        **layer(f"{text}.ln_final", text_width),
        **blocks(f"{text}.blocks", text_depth, text_block(text_width)),
        "text_model.head.linear_projection.weight": (2 * width, text_width),
    }


def layer(name: str, *shape: int) -> Shapes:
    """Name a weight and the bias of its outputs."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def block(width: int, mlp: Shapes) -> Shapes:
    """Name the weights of one transformer block; queries, keys and values have no bias."""
    return {
        **layer("norm1", width),
        "attn.qkv.weight": (3 * width, width),
        **layer("attn.proj", width, width),
        "ls1.gamma": (width,),
        **layer("norm2", width),
        **mlp,
        "ls2.gamma": (width,),
    }


def plain_mlp(width: int) -> Shapes:
    """Name the weights of two products, four times as wide between."""
    return {**layer("mlp.fc1", 4 * width, width), **layer("mlp.fc2", width, 4 * width)}


def gated_mlp(width: int, hidden: int) -> Shapes:
    """Name the weights of SwiGLU's three products."""
    return {
        **layer("mlp.w1", hidden, width),
        **layer("mlp.w2", hidden, width),
        **layer("mlp.w3", width, hidden),
    }


def text_block(width: int) -> Shapes:
    """Name the weights of a text tower's block: no scales, and different names."""
    named = {}
    for name, shape in block(width, plain_mlp(width)).items():
        part, _, rest = name.partition(".")
        if rest != "gamma":
            named[f"{TEXT_NAMES[part]}.{rest}"] = shape
    return named


def blocks(prefix: str, depth: int, block: Shapes) -> Shapes:
    """Name the weights of this many equal blocks."""
    return {f"{prefix}.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}


def draw(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Draw weights by name: products of unit size; scales around one, so that blocks matter."""
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
    """Add what Meta's file also holds: rounded periods, and biases that a mask of zeros hides."""
    zero = {
        name.replace("weight", end): torch.zeros(len(weight))
        for name, weight in trunk.items()
        for end in ("bias", "bias_mask")
        if name.endswith("qkv.weight")
    }
    return {**trunk, **zero, "rope_embed.periods": periods()}


def timms(trunk: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a trunk's weights as timm's file has them."""
    return {
        _renamed(name, TIMMS_NAMES): tensor
        for name, tensor in trunk.items()
        if name != "mask_token"
    }


def metas_names(visual: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rename the weights of a backbone's image tower, trunk and head, as Meta's files have them."""
    old = {timms: metas for metas, timms in TIMMS_NAMES.items()}
    head = {f"visual_model.{k}": v for k, v in visual.items() if k.startswith("head.")}
    trunk = {k.removeprefix("trunk."): v for k, v in visual.items() if not k.startswith("head.")}
    return {_renamed(name, old): tensor for name, tensor in trunk.items()}, head


def _renamed(name: str, new: Mapping[str, str]) -> str:
    for old, replacement in new.items():
        name = name.replace(old, replacement)
    return name


def write(folder: Path, seed: int = 0) -> Path:
    """Write a small backbone as a user would: data file, key list, and a folder with two files."""
    weights = folder / "weights"
    weights.mkdir(parents=True)
    shapes = dinotxt_shapes()
    torch.save(metas(draw(trunk_shapes(), seed)), weights / TRUNK_FILE)
    torch.save(draw(shapes, seed + 1), weights / TEXT_FILE)
    (folder / "small.yaml").write_text(CARD)
    listed = ", ".join(f'"{name}": {list(shape)}' for name, shape in shapes.items())
    (folder / "small_keys.json").write_text(f"{{{listed}}}")
    return folder


def spec(small: Path, **more: Any) -> BackboneSpec:
    """Name the small backbone in a folder, as a user does."""
    return BackboneSpec(
        **{"name": str(small / "small.yaml"), "path": str(small / "weights"), **more}
    )


def load(small: Path, **more: Any) -> DinoV3Txt:
    """Load the small backbone in a folder."""
    return DinoV3Txt(spec(small, **more))
