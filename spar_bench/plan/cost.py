"""Closed-form cost: floating-point operations of reading one image, and of training on it.

One multiply-accumulate is 2 FLOPs. Matrix products and convolutions are counted; element-wise work,
normalisation, softmax, resampling and stitching are not, as in `torch.utils.flop_counter`, which
the `cost` stage compares these figures with.

Legend: n patches, N tokens (patches and those before them: class token, registers), D width,
M hidden width of the MLP, C channels, Q text queries.
"""

from collections.abc import Callable
from dataclasses import dataclass

from spar_bench.backbones import Sizes, TextSizes
from spar_bench.errors import SparBenchError
from spar_bench.inference import Inference
from spar_bench.values import parse_trainable
from spar_bench.windows import n_encoded, n_windows


def windows_of(sizes: Sizes, inference: Inference, image_hw: tuple[int, int]) -> int:
    """Return how many passes of the encoder one image takes.

    If features are averaged, windows slide over an image with sides that are multiples of the
    patch.
    """
    if inference.window_px is None or inference.stride_px is None:
        return 1
    return n_windows(slid_hw(sizes, inference, image_hw), inference.window_px, inference.stride_px)


def pass_hw(sizes: Sizes, inference: Inference, image_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size that one encoder pass reads: the image, or a window clipped to it."""
    if inference.window_px is None:
        return image_hw
    height, width = slid_hw(sizes, inference, image_hw)
    return min(inference.window_px, height), min(inference.window_px, width)


def slid_hw(sizes: Sizes, inference: Inference, image_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size windows slide over: the image, in whole patches if features are averaged."""
    return sizes.whole_hw(image_hw) if inference.average == "features" else image_hw


def image_flops(
    sizes: Sizes, inference: Inference, image_hw: tuple[int, int], *, n_queries: int
) -> int:
    """Return the FLOPs of reading one image: encoder over all windows, and products with text.

    If logits are averaged, each window is multiplied with the text; if features, only the stitched
    grid.
    """
    is_each = inference.average == "logits"
    heads = windows_of(sizes, inference, image_hw) if is_each else 1
    met_hw = pass_hw(sizes, inference, image_hw) if is_each else image_hw
    cosines = heads * cosine_flops(sizes, met_hw, n_queries)
    return windows_flops(sizes, inference, image_hw) + cosines


def windows_flops(sizes: Sizes, inference: Inference, image_hw: tuple[int, int]) -> int:
    """Return the FLOPs of encoding one image: of all its windows, or of its single pass."""
    passes = windows_of(sizes, inference, image_hw)
    return passes * encoder_flops(sizes, pass_hw(sizes, inference, image_hw))


def shared_flops(sizes: Sizes, inferences: list[Inference], image_hw: tuple[int, int]) -> int:
    """Return the FLOPs of encoding one image in several ways: a shared window counts once."""
    window_px = inferences[0].window_px
    if window_px is None:
        return encoder_flops(sizes, image_hw)
    strides = [one.stride_px for one in inferences if one.stride_px is not None]
    n_passes = n_encoded(slid_hw(sizes, inferences[0], image_hw), window_px, strides)
    return n_passes * encoder_flops(sizes, pass_hw(sizes, inferences[0], image_hw))


def encoder_flops(sizes: Sizes, image_hw: tuple[int, int]) -> int:
    """Return the FLOPs of encoding one image or window to dense features."""
    n = _n_patches(sizes, image_hw)
    way = _read_out(sizes)(sizes, n)
    blocks = sum(block.forward for block in (*way.blocks, *way.head))
    return _patch_embedding(sizes, n) + blocks + way.tail


def cosine_flops(sizes: Sizes, image_hw: tuple[int, int], n_queries: int) -> int:
    """Return the FLOPs of the cosines of one feature map with every text query."""
    return 2 * _n_patches(sizes, image_hw) * sizes.channels * n_queries


def prompt_flops(text: TextSizes | None) -> int:
    """Return the FLOPs of embedding one prompt, without its projection; 0 if sizes are unknown."""
    if text is None:
        return 0
    linear = (8 + 4 * text.mlp_ratio) * text.context * text.width**2
    mixing = 4 * text.context**2 * text.width
    return text.depth * round(linear + mixing)


def training_flops(sizes: Sizes, image_hw: tuple[int, int], trainable: str) -> int:
    """Return the FLOPs of one forward and backward pass over one image.

    In the backward pass, a matrix product with weights costs once for its input and once more for
    weights that train; products inside attention cost 2.5 times, since fused kernels recompute the
    first of the two; nothing is computed before the first part that trains.
    """
    n = _n_patches(sizes, image_hw)
    way, asked = _read_out(sizes)(sizes, n), parse_trainable(trainable)
    once_or_twice = 2 if asked.part == "all" else 1
    backward = way.tail * once_or_twice
    for block in way.head:
        backward += (block.linear + block.mlp) * once_or_twice + block.mixing * 5 // 2
    if asked.part in ("all", "patch_embedding"):
        backward += _patch_embedding(sizes, n)
    reached = way.blocks[-asked.n_blocks :] if asked.n_blocks else way.blocks
    for place, block in enumerate(reached):
        backward += block.mlp * (2 if asked.part in ("all", "blocks", "mlp") else 1)
        if asked.part == "mlp" and place == 0:
            continue  # its MLP is the first part that trains
        backward += block.linear * (2 if asked.part in ("all", "blocks", "attention") else 1)
        backward += block.mixing * 5 // 2
    return encoder_flops(sizes, image_hw) + backward


def trained_params(sizes: Sizes, trainable: str) -> int:
    """Return how many weights a student trains, without biases, norms and single tokens."""
    asked = parse_trainable(trainable)
    patches = 3 * sizes.patch_px**2 * sizes.width
    n_positions = (sizes.image_px // sizes.patch_px) ** 2 + sizes.prefix_tokens
    positions = 0 if sizes.position_embedding == "rope" else n_positions * sizes.width
    attention, mlp = 4 * sizes.width**2, round(2 * sizes.mlp_ratio * sizes.width**2)
    after = {
        "maskclip": sizes.width * sizes.channels,
        "attention_pool_values": attention + mlp,
        "head_patch_tokens": _HEAD_BLOCKS * (attention + 3 * sizes.width * _gated(sizes)),
    }
    n_blocks = min(asked.n_blocks or sizes.depth, sizes.depth)
    return {
        "position_embedding": positions,
        "patch_embedding": patches,
        "attention": n_blocks * attention,
        "mlp": n_blocks * mlp,
        "blocks": n_blocks * (attention + mlp),
        "all": patches + positions + n_blocks * (attention + mlp) + after.get(sizes.read_out, 0),
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


@dataclass(frozen=True)
class _Way:
    """FLOPs of a backbone after its patch embedding.

    `head` has blocks after the trunk's, `tail` products with weights after all blocks; both train
    only with `all`.
    """

    blocks: list[_Block]
    head: list[_Block]
    tail: int


def _whole_block(sizes: Sizes, tokens: int) -> _Block:
    return _Block(_attention_linear(sizes, tokens), _mixing(sizes, tokens), _mlp(sizes, tokens))


def _maskclip(sizes: Sizes, n: int) -> _Way:
    """All blocks but the last, then its value path for patches only, and the projection."""
    whole = _whole_block(sizes, n + sizes.prefix_tokens)
    last = _Block(_value_linear(sizes, n), 0, _mlp(sizes, n))
    return _Way([*[whole] * (sizes.depth - 1), last], [], 2 * n * sizes.width * sizes.channels)


def _attention_pool_values(sizes: Sizes, n: int) -> _Way:
    """All blocks, then value, output projection and MLP of the pooling head for each patch."""
    whole = _whole_block(sizes, n + sizes.prefix_tokens)
    return _Way([whole] * sizes.depth, [], _value_linear(sizes, n) + _mlp(sizes, n))


def _patch_tokens(sizes: Sizes, n: int) -> _Way:
    """All blocks, and nothing after them."""
    return _Way([_whole_block(sizes, n + sizes.prefix_tokens)] * sizes.depth, [], 0)


def _head_patch_tokens(sizes: Sizes, n: int) -> _Way:
    """All blocks, then those of dino.txt's head: attention, and a gated MLP of width G, 6NDG."""
    tokens = n + sizes.prefix_tokens
    gated = 6 * tokens * sizes.width * _gated(sizes)
    block = _Block(_attention_linear(sizes, tokens), _mixing(sizes, tokens), gated)
    return _Way(_patch_tokens(sizes, n).blocks, [block] * _HEAD_BLOCKS, 0)


def _gated(sizes: Sizes) -> int:
    """Return the hidden width of the MLPs in dino.txt's head: two thirds of 4D, in whole 64s."""
    return -(-(4 * sizes.width * 2 // 3) // 64) * 64


_HEAD_BLOCKS = 2
_READ_OUTS: dict[str, Callable[[Sizes, int], _Way]] = {
    "maskclip": _maskclip,
    "attention_pool_values": _attention_pool_values,
    "patch_tokens": _patch_tokens,
    "head_patch_tokens": _head_patch_tokens,
}


def _read_out(sizes: Sizes) -> Callable[[Sizes, int], _Way]:
    """Return the FLOP count of a read-out for this many patches."""
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
