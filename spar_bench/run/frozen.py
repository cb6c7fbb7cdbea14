"""What lies before the first part that a student trains: run once for each image, and kept.

Shape legend: H x W pixels, h x w patch grid, N tokens, D width, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from spar_bench.backbones.base import Backbone
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
    return partial(backbone.features_after, depth)


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
    _kept: dict[int, dict[int, Entry]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Collect the depths at which tokens are taken."""
        self._wanted = {depth for depth in self.depths if depth is not None}

    def entries(self, position: int, image: Tensor) -> dict[int | None, Entry]:
        """Return where an image `(3, H, W)`, normalised, enters students, by their depth.

        `position` is its place in the drawn list. Work done is added to `flops`.
        """
        sizes, image_hw = self.backbone.sizes, (image.shape[-2], image.shape[-1])
        found: dict[int | None, Entry] = {}
        if None in self.depths:
            found[None] = Entry(image[None], sizes.grid_hw(image_hw))
        if not self._wanted:
            return found
        taken = self._kept.get(position)
        if taken is None:
            taken = self._run(image[None])
            self.flops += prefix_flops(sizes, image_hw, max(self._wanted))
            self._keep(position, taken)
        return found | {n: Entry(moved(t, image.device), hw) for n, (t, hw) in taken.items()}

    def _run(self, images: Tensor) -> dict[int, Entry]:
        """Return the tokens after each depth."""
        found = dict[int, Entry]()
        with torch.no_grad(), autocast(images.device, self.precision):
            tokens, grid_hw = self.backbone.embedded(images)
            for place, block in enumerate(self.backbone.blocks(grid_hw)[: max(self._wanted)]):
                if place in self._wanted:
                    found[place] = Entry(tokens, grid_hw)
                tokens = block(tokens)
        return found | {max(self._wanted): Entry(tokens, grid_hw)}

    def _keep(self, position: int, taken: dict[int, Entry]) -> None:
        n_bytes = sum(one.values.numel() * one.values.element_size() for one in taken.values())
        if not self.is_read_again or n_bytes > self.budget:
            return
        self.budget -= n_bytes
        self._kept[position] = {n: Entry(t.cpu(), grid_hw) for n, (t, grid_hw) in taken.items()}
