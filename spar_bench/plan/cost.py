"""Closed-form cost: floating-point operations of reading one image, and of training on it.

One multiply-accumulate is 2 FLOPs. Matrix products and convolutions are counted; element-wise work,
normalisation, softmax, resampling and stitching are not, as in `torch.utils.flop_counter`, which
the `cost` stage holds these figures against.

Legend: n patches, N tokens (patches and those before them: class token, registers), D width,
M hidden width of the MLP, C channels, Q text queries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from spar_bench.backbones import Sizes
from spar_bench.errors import SparBenchError
from spar_bench.spec.trainable import parse_trainable
from spar_bench.windows import n_windows


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

    Windows whose features are averaged slide over an image of whole patches.
    """
    if inference.window_px is None or inference.stride_px is None:
        return 1
    height, width = image_hw
    if inference.average == "features":
        height, width = sizes.whole_hw(image_hw)
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
    blocks, tail = _read_out(sizes)(sizes, n)
    return _patch_embedding(sizes, n) + sum(block.forward for block in blocks) + tail


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
    blocks, tail = _read_out(sizes)(sizes, n)
    asked = parse_trainable(trainable)
    backward = tail * (2 if asked.part == "all" else 1)
    if asked.part in ("all", "patch_embedding"):
        backward += _patch_embedding(sizes, n)
    reached = blocks[-asked.n_blocks :] if asked.n_blocks else blocks
    for place, block in enumerate(reached):
        backward += block.mlp * (2 if asked.part in ("all", "blocks", "mlp") else 1)
        if asked.part == "mlp" and place == 0:
            continue  # its MLP is the first thing that trains
        backward += block.linear * (2 if asked.part in ("all", "blocks", "attention") else 1)
        backward += block.mixing * 5 // 2
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


@dataclass(frozen=True)
class _Block:
    """FLOPs of a transformer block: products with weights, those inside attention, the MLP's."""

    linear: int
    mixing: int
    mlp: int

    @property
    def forward(self) -> int:
        return self.linear + self.mixing + self.mlp


def _whole_block(sizes: Sizes, tokens: int) -> _Block:
    return _Block(_attention_linear(sizes, tokens), _mixing(sizes, tokens), _mlp(sizes, tokens))


def _maskclip(sizes: Sizes, n: int) -> tuple[list[_Block], int]:
    """All blocks but the last, its value path without other tokens, and the projection."""
    whole = _whole_block(sizes, n + sizes.prefix_tokens)
    last = _Block(_value_linear(sizes, n), 0, _mlp(sizes, n))
    return [*[whole] * (sizes.depth - 1), last], 2 * n * sizes.width * sizes.channels


def _attention_pool_values(sizes: Sizes, n: int) -> tuple[list[_Block], int]:
    """All blocks, then value, output projection and MLP of the pooling head for each patch."""
    whole = _whole_block(sizes, n + sizes.prefix_tokens)
    return [whole] * sizes.depth, _value_linear(sizes, n) + _mlp(sizes, n)


def _patch_tokens(sizes: Sizes, n: int) -> tuple[list[_Block], int]:
    """All blocks, and nothing after them."""
    return [_whole_block(sizes, n + sizes.prefix_tokens)] * sizes.depth, 0


_READ_OUTS: dict[str, Callable[[Sizes, int], tuple[list[_Block], int]]] = {
    "maskclip": _maskclip,
    "attention_pool_values": _attention_pool_values,
    "patch_tokens": _patch_tokens,
}


def _read_out(sizes: Sizes) -> Callable[[Sizes, int], tuple[list[_Block], int]]:
    """Return what counts the blocks and the tail of a read-out for so many patches."""
    if sizes.read_out not in _READ_OUTS:
        raise SparBenchError(
            f"backbone.read_out: must be one whose cost is known, but got {sizes.read_out!r}; "
            f"use {', '.join(_READ_OUTS)}"
        )
    return _READ_OUTS[sizes.read_out]


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
