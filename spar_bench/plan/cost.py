"""Closed-form cost: floating-point operations of reading one image, and of training on it.

One multiply-accumulate is 2 FLOPs. Matrix products and convolutions are counted; element-wise work,
normalisation, softmax, resampling and stitching are not, as in `torch.utils.flop_counter`, which
the `cost` stage holds these figures against.

Legend: n patches, N = n + 1 tokens (class token), D width, M hidden width of the MLP, C channels,
Q text queries.
"""

from dataclasses import dataclass
from typing import Literal

from spar_bench.backbones import Sizes
from spar_bench.spec.trainable import parse_trainable
from spar_bench.windows import n_windows, whole_patches


@dataclass(frozen=True)
class Inference:
    """How features are read: in one pass, or through a sliding window.

    `average` says as what overlapping windows are averaged; `upsample` is the factor r of feature
    averaging. Both are None where they do not apply.
    """

    kind: Literal["single_pass", "sliding_window"]
    window_px: int | None = None
    stride_px: int | None = None
    average: Literal["logits", "features"] | None = None
    upsample: int | None = None


SINGLE_PASS = Inference("single_pass")


def windows_of(sizes: Sizes, inference: Inference, image_hw: tuple[int, int]) -> int:
    """Return how many passes of the encoder one image takes.

    Windows whose features are averaged slide over the whole patches of the image only.
    """
    if inference.window_px is None or inference.stride_px is None:
        return 1
    height, width = image_hw
    if inference.average == "features":
        height, width = (whole_patches(side, sizes.patch_px) for side in image_hw)
    return n_windows((height, width), inference.window_px, inference.stride_px)


def pass_hw(inference: Inference, image_hw: tuple[int, int]) -> tuple[int, int]:
    """Return what one pass of the encoder reads: the image, or a window clipped to it."""
    if inference.window_px is None:
        return image_hw
    return min(inference.window_px, image_hw[0]), min(inference.window_px, image_hw[1])


def image_flops(
    sizes: Sizes, inference: Inference, image_hw: tuple[int, int], *, n_queries: int
) -> int:
    """Return the FLOPs of reading one image: encoder over all windows, and products with text.

    Averaged as logits, each window meets the text; averaged as features, only the stitched grid.
    """
    read_hw = pass_hw(inference, image_hw)
    passes = windows_of(sizes, inference, image_hw)
    heads = passes if inference.average == "logits" else 1
    met_hw = read_hw if inference.average == "logits" else image_hw
    return passes * encoder_flops(sizes, read_hw) + heads * text_flops(sizes, met_hw, n_queries)


def encoder_flops(sizes: Sizes, image_hw: tuple[int, int]) -> int:
    """Return the FLOPs of encoding one image or window to dense features."""
    n = _n_patches(sizes, image_hw)
    full_blocks = (sizes.depth - 1) * _block(sizes, n + 1)
    projection = 2 * n * sizes.width * sizes.channels
    return _patch_embedding(sizes, n) + full_blocks + _value_block(sizes, n) + projection


def text_flops(sizes: Sizes, image_hw: tuple[int, int], n_queries: int) -> int:
    """Return the FLOPs of the cosines of one feature map with every text query."""
    return 2 * _n_patches(sizes, image_hw) * sizes.channels * n_queries


def training_flops(sizes: Sizes, image_hw: tuple[int, int], trainable: str) -> int:
    """Return the FLOPs of one forward and backward pass over one image.

    Backward costs a matrix product with weights once for its input and once more for the weights
    where they train; the products inside attention 2.5 times, since fused kernels compute the first
    of the two again; and nothing comes before the first part that trains.
    """
    n = _n_patches(sizes, image_hw)
    asked = parse_trainable(trainable)
    depth = asked.n_blocks or sizes.depth
    projection = 2 * n * sizes.width * sizes.channels
    backward = projection * (2 if asked.part == "all" else 1)
    if asked.part in ("all", "patch_embedding"):
        backward += _patch_embedding(sizes, n)
    for place in range(sizes.depth - depth, sizes.depth):
        is_last = place == sizes.depth - 1
        linear = _value_linear(sizes, n) if is_last else _attention_linear(sizes, n + 1)
        mixing = 0 if is_last else _mixing(sizes, n + 1)
        mlp = _mlp(sizes, n if is_last else n + 1)
        backward += mlp * (2 if asked.part in ("all", "blocks", "mlp") else 1)
        if asked.part == "mlp" and place == sizes.depth - depth:
            continue  # its MLP is the first thing that trains
        backward += linear * (2 if asked.part in ("all", "blocks", "attention") else 1)
        backward += mixing * 5 // 2
    return encoder_flops(sizes, image_hw) + backward


def trained_params(sizes: Sizes, trainable: str) -> int:
    """Return how many weights a student trains, biases and norms left out."""
    asked = parse_trainable(trainable)
    patches = 3 * sizes.patch_px**2 * sizes.width
    positions = (sizes.image_px // sizes.patch_px) ** 2 * sizes.width
    attention, mlp = 4 * sizes.width**2, round(2 * sizes.mlp_ratio * sizes.width**2)
    n_blocks = min(asked.n_blocks or sizes.depth, sizes.depth)
    return {
        "position_embedding": positions,
        "patch_embedding": patches,
        "attention": n_blocks * attention,
        "mlp": n_blocks * mlp,
        "blocks": n_blocks * (attention + mlp),
        "all": n_blocks * (attention + mlp) + patches + positions + sizes.width * sizes.channels,
    }[asked.part]


def _n_patches(sizes: Sizes, image_hw: tuple[int, int]) -> int:
    rows, columns = sizes.grid_hw(image_hw)
    return rows * columns


def _patch_embedding(sizes: Sizes, n: int) -> int:
    return 2 * n * 3 * sizes.patch_px**2 * sizes.width


def _block(sizes: Sizes, tokens: int) -> int:
    return _attention_linear(sizes, tokens) + _mixing(sizes, tokens) + _mlp(sizes, tokens)


def _value_block(sizes: Sizes, n: int) -> int:
    """No attention, and no class token."""
    return _value_linear(sizes, n) + _mlp(sizes, n)


def _attention_linear(sizes: Sizes, tokens: int) -> int:
    """Query, key, value and output: 8ND^2."""
    return 8 * tokens * sizes.width**2


def _value_linear(sizes: Sizes, n: int) -> int:
    """Value and output: 4nD^2."""
    return 4 * n * sizes.width**2


def _mixing(sizes: Sizes, tokens: int) -> int:
    """Products of queries with keys and of weights with values: 4N^2D."""
    return 4 * tokens**2 * sizes.width


def _mlp(sizes: Sizes, tokens: int) -> int:
    """Both layers: 4NDM."""
    return 4 * tokens * sizes.width * int(sizes.width * sizes.mlp_ratio)
