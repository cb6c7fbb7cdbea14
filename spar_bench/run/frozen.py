"""What lies before the first part that a student trains: run once for each image, and kept.

Shape legend: H x W pixels, h x w patch grid, N tokens, D width, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from spar_bench.backbones.base import Backbone, fit_sides
from spar_bench.components.flops import n_frozen_blocks, prefix_flops
from spar_bench.run.context import autocast, moved
from spar_bench.run.distributed import Trained
from spar_bench.stages.student import KEPT_BYTES
from spar_bench.values import Precision


class Entry(NamedTuple):
    """Where an image enters a student: as normalised pixels, `(1, 3, H, W)`, or as tokens.

    Tokens, `(1, N, D)`, are those after the frozen blocks; their grid is `grid_hw`.
    """

    values: Tensor
    grid_hw: tuple[int, int]


def trained_part(backbone: Backbone, depth: int | None) -> Trained:
    """Return a backbone behind its first `depth` blocks; all of it if that is None."""
    if depth is None:
        return lambda images, _: backbone.features(images)

    def run(tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        for block in backbone.blocks(grid_hw)[depth:]:
            tokens = block(tokens)
        return backbone.read(tokens, grid_hw)

    return run


def frozen_depth(backbone: Backbone, trainable: str) -> int | None:
    """Return how many blocks come before the first part that trains; None if an embedding does."""
    n_frozen = n_frozen_blocks(backbone.sizes, trainable)
    if n_frozen is None:
        return None
    side = backbone.sizes.native_side
    return min(n_frozen, len(backbone.blocks((side, side))))  # the last may be a part of `read`


@dataclass
class Frozen:
    """Runs the frozen blocks of students with the same pretrained weights, once for an image.

    `backbone` is one in which all of them are frozen: that of the student with most frozen blocks.
    `depths` has each student's number of frozen blocks. What an image gives is kept in memory if it
    is read again, until `budget` is used up; further images are run again.
    """

    backbone: Backbone
    depths: Sequence[int | None]
    precision: Precision
    is_read_again: bool
    budget: int = field(default_factory=lambda: KEPT_BYTES)
    flops: int = 0
    _kept: dict[int, tuple[dict[int, Tensor], tuple[int, int]]] = field(default_factory=dict)

    def entries(self, position: int, image: Tensor) -> dict[int | None, Entry]:
        """Return where an image `(3, H, W)`, normalised, enters students, by their depth.

        `position` is its place in the drawn list. Work done is added to `flops`.
        """
        sizes, pixels = self.backbone.sizes, image[None]
        image_hw = image.shape[-2], image.shape[-1]
        found: dict[int | None, Entry] = {}
        if None in self.depths:
            found[None] = Entry(pixels, sizes.grid_hw(image_hw))
        deepest = max((depth for depth in self.depths if depth is not None), default=None)
        if deepest is None:
            return found
        kept = self._kept.get(position)
        if kept is None:
            kept = self._run(pixels)
            self.flops += prefix_flops(sizes, image_hw, deepest)
            self._keep(position, kept)
        tokens, grid_hw = kept
        device = image.device
        return found | {n: Entry(moved(one, device), grid_hw) for n, one in tokens.items()}

    def _run(self, images: Tensor) -> tuple[dict[int, Tensor], tuple[int, int]]:
        """Return the tokens after each depth, and their grid."""
        backbone, wanted = self.backbone, {depth for depth in self.depths if depth is not None}
        whole, found = fit_sides(images, backbone.sizes), dict[int, Tensor]()
        grid_hw = backbone.sizes.grid_hw((images.shape[-2], images.shape[-1]))
        with torch.no_grad(), autocast(images.device, self.precision):
            tokens = backbone.embed(whole)
            for place, block in enumerate([*backbone.blocks(grid_hw)[: max(wanted)], None]):
                if place in wanted:
                    found[place] = tokens
                if block is not None:
                    tokens = block(tokens)
        return found, grid_hw

    def _keep(self, position: int, made: tuple[dict[int, Tensor], tuple[int, int]]) -> None:
        tokens, grid_hw = made
        n_bytes = sum(one.numel() * one.element_size() for one in tokens.values())
        if not self.is_read_again or n_bytes > self.budget:
            return
        self.budget -= n_bytes
        self._kept[position] = {n: one.cpu() for n, one in tokens.items()}, grid_hw
