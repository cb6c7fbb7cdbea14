"""Closed-form FLOPs of a vision transformer: encoding an image, a training step, prompts.

One multiply-accumulate is 2 FLOPs. Matrix products and convolutions are counted; element-wise work,
normalisation, softmax, resampling and stitching are not, as in `torch.utils.flop_counter`, which
the `cost` stage compares these figures with. What comes after the patch embedding is stated by the
backbone's read-out, a plug-in of the family `read_outs`. No torch here: plans are made of it.

Legend: n patches, N tokens (patches and those before them: class token, registers), D width,
M hidden width of the MLP, C channels, Q text queries.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache

from spar_bench import registry
from spar_bench.components.sizes import Sizes, TextSizes
from spar_bench.values import Optimiser, parse_trainable

MUON_ITERATIONS = 5
"""Newton-Schulz iterations of a step of Muon."""


@dataclass(frozen=True)
class BlockFlops:
    """FLOPs of a transformer block: products with weights, those inside attention, the MLP's."""

    linear: int
    mixing: int
    mlp: int

    @property
    def forward(self) -> int:
        """FLOPs of running the block."""
        return self.linear + self.mixing + self.mlp


@dataclass(frozen=True)
class TowerFlops:
    """FLOPs of a backbone after its patch embedding.

    `head` has blocks after the trunk's, `tail` products with weights after all blocks; both train
    only with `all`.
    """

    blocks: list[BlockFlops]
    head: list[BlockFlops]
    tail: int


class ReadOut(ABC):
    """What is read out of a transformer, as far as its cost goes: a module without torch.

    It is a module of `spar_bench/read_outs`, or of another package under an entry point in the
    group `spar_bench.read_outs`, with a class `ReadOut` and a `VERSION`. Data files of backbones
    name it (`read_out: maskclip`). With `NEEDS_HEAD = True`, they must also state `head_depth`.
    """

    @abstractmethod
    def flops(self, sizes: Sizes, n_patches: int) -> TowerFlops:
        """Return the FLOPs of an image after its patch embedding."""

    @abstractmethod
    def n_params(self, sizes: Sizes) -> int:
        """Return how many weights after the trunk's blocks train with `all`, without biases."""


def encoder_flops(sizes: Sizes, image_hw: tuple[int, int]) -> int:
    """Return the FLOPs of encoding one image or window to dense features."""
    n = _n_patches(sizes, image_hw)
    tower = _read_out(sizes.read_out).flops(sizes, n)
    blocks = sum(block.forward for block in (*tower.blocks, *tower.head))
    return _patch_embedding(sizes, n) + blocks + tower.tail


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
    tower, asked = _read_out(sizes.read_out).flops(sizes, n), parse_trainable(trainable)
    once_or_twice = 2 if asked.part == "all" else 1
    backward = tower.tail * once_or_twice
    for block in tower.head:
        backward += (block.linear + block.mlp) * once_or_twice + block.mixing * 5 // 2
    if asked.part in ("all", "patch_embedding"):
        backward += _patch_embedding(sizes, n)
    reached = tower.blocks[-asked.n_blocks :] if asked.n_blocks else tower.blocks
    for place, block in enumerate(reached):
        backward += block.mlp * (2 if asked.part in ("all", "blocks", "mlp") else 1)
        if asked.part == "mlp" and place == 0:
            continue  # its MLP is the first part that trains
        backward += block.linear * (2 if asked.part in ("all", "blocks", "attention") else 1)
        backward += block.mixing * 5 // 2
    return encoder_flops(sizes, image_hw) + backward


def update_flops(sizes: Sizes, optimiser: Optimiser, trainable: str) -> int:
    """Return the FLOPs of updating weights once: Muon's products, of all matrices it is for.

    An MLP counts as two matrices; a gated one, of three, is stated by an equivalent ratio, and its
    products come out 4 % too few.
    """
    asked = parse_trainable(trainable)
    if optimiser != "muon":
        return 0
    width, hidden = sizes.width, int(sizes.width * sizes.mlp_ratio)
    attention = [(3 * width, width), (width, width)]
    both_layers = [(hidden, width), (width, hidden)]
    shapes = {"attention": attention, "mlp": both_layers}.get(asked.part, attention + both_layers)
    n_blocks = min(asked.n_blocks or sizes.depth, sizes.depth)
    return n_blocks * sum(_muon_flops(*shape) for shape in shapes)


def _muon_flops(rows: int, columns: int) -> int:
    """Return the FLOPs of Muon's iterations on a matrix: three products each, one of a square."""
    short, long = sorted((rows, columns))
    return MUON_ITERATIONS * (4 * short**2 * long + 2 * short**3)


def n_frozen_blocks(sizes: Sizes, trainable: str) -> int | None:
    """Return how many blocks come before the first that trains; None if an embedding trains."""
    n_blocks = parse_trainable(trainable).n_blocks
    return sizes.depth - n_blocks if n_blocks else None


def prefix_flops(sizes: Sizes, image_hw: tuple[int, int], n_blocks: int) -> int:
    """Return the FLOPs of the patch embedding and the first blocks, for one image."""
    n = _n_patches(sizes, image_hw)
    blocks = _read_out(sizes.read_out).flops(sizes, n).blocks[:n_blocks]
    return _patch_embedding(sizes, n) + sum(block.forward for block in blocks)


def trained_params(sizes: Sizes, trainable: str) -> int:
    """Return how many weights a student trains, without biases, norms and single tokens."""
    asked = parse_trainable(trainable)
    patches = 3 * sizes.patch_px**2 * sizes.width
    positions = 0 if sizes.position_embedding == "rope" else sizes.n_positions * sizes.width
    attention, mlp = attention_params(sizes), mlp_params(sizes)
    n_blocks = min(asked.n_blocks or sizes.depth, sizes.depth)
    if asked.part == "all":
        after = _read_out(sizes.read_out).n_params(sizes)
        return patches + positions + n_blocks * (attention + mlp) + after
    return {
        "position_embedding": positions,
        "patch_embedding": patches,
        "attention": n_blocks * attention,
        "mlp": n_blocks * mlp,
        "blocks": n_blocks * (attention + mlp),
    }[asked.part]


def whole_blocks(sizes: Sizes, n_patches: int) -> list[BlockFlops]:
    """Return all of a trunk's blocks, run over patches and prefix tokens."""
    tokens = n_patches + sizes.prefix_tokens
    block = BlockFlops(attention_linear(sizes, tokens), mixing(sizes, tokens), mlp(sizes, tokens))
    return [block] * sizes.depth


def attention_linear(sizes: Sizes, tokens: int) -> int:
    """Query, key, value and output: 8ND^2."""
    return 8 * tokens * sizes.width**2


def value_linear(sizes: Sizes, n: int) -> int:
    """Value and output: 4nD^2."""
    return 4 * n * sizes.width**2


def mixing(sizes: Sizes, tokens: int) -> int:
    """Products of queries with keys and of weights with values: 4N^2D."""
    return 4 * tokens**2 * sizes.width


def mlp(sizes: Sizes, tokens: int) -> int:
    """Both layers: 4NDM."""
    return 4 * tokens * sizes.width * int(sizes.width * sizes.mlp_ratio)


def attention_params(sizes: Sizes) -> int:
    """Query, key, value and output: 4D^2 weights."""
    return 4 * sizes.width**2


def mlp_params(sizes: Sizes) -> int:
    """Both layers: 2DM weights."""
    return round(2 * sizes.mlp_ratio * sizes.width**2)


def _n_patches(sizes: Sizes, image_hw: tuple[int, int]) -> int:
    rows, columns = sizes.grid_hw(image_hw)
    return rows * columns


def _patch_embedding(sizes: Sizes, n: int) -> int:
    return 2 * n * 3 * sizes.patch_px**2 * sizes.width


@cache
def _read_out(name: str) -> ReadOut:
    made: ReadOut = registry.load("read_outs", name)()
    return made
