"""The sizes of a backbone: all that a plan needs to know about it, without torch."""

from bisect import bisect_left
from dataclasses import dataclass
from math import prod
from typing import Annotated

from pydantic import Field, FiniteFloat

from spar_bench.values import OddSides, PositionRule, Positive, Side


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a plan needs to know about a backbone: what decides windows, grids, FLOPs and bytes.

    `prefix_tokens` come before those of patches (class token, registers). Sides that are not a
    multiple of the patch lose the remainder (`floor`), are padded with zeros, or are stretched, as
    `odd_sides` says. `head_depth` counts blocks after the trunk's, for read-outs that have them. An
    image of more patches than `token_budget` is scaled down first.
    """

    patch_px: Side
    image_px: Side
    width: Positive
    depth: Positive
    heads: Positive
    mlp_ratio: Annotated[FiniteFloat, Field(gt=0)]
    channels: Positive
    read_out: str
    prefix_tokens: Annotated[int, Field(ge=0)] = 1
    position_embedding: PositionRule = "scale_factor"
    odd_sides: OddSides = "floor"
    token_budget: Positive | None = None
    head_depth: Annotated[int, Field(ge=0)] = 0

    @property
    def native_side(self) -> int:
        """Patches along a side of a native image."""
        return self.image_px // self.patch_px

    @property
    def n_positions(self) -> int:
        """Number of learned position embeddings, those of prefix tokens included."""
        return self.prefix_tokens + self.native_side**2

    def grid_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the patch grid of an image, height first."""
        return self._grid_hw(self.scaled_hw(image_hw))

    def whole_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size in pixels of an image whose sides were made multiples of the patch."""
        rows, columns = self.grid_hw(image_hw)
        return rows * self.patch_px, columns * self.patch_px

    def scaled_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size in pixels at which an image is read, before its sides are made whole.

        That is its own size if its grid is within the token budget. Otherwise the longer side is
        the largest number of pixels that brings the grid within it; the other keeps the ratio,
        rounded half up.
        """
        if self._is_within_budget(image_hw):
            return image_hw
        longer_px = max(image_hw)
        first_beyond = bisect_left(
            range(1, longer_px),
            True,
            key=lambda px: not self._is_within_budget(_scaled(image_hw, px)),
        )
        return _scaled(image_hw, first_beyond)

    def _grid_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        extra = 0 if self.odd_sides == "floor" else self.patch_px - 1
        return (image_hw[0] + extra) // self.patch_px, (image_hw[1] + extra) // self.patch_px

    def _is_within_budget(self, image_hw: tuple[int, int]) -> bool:
        return self.token_budget is None or prod(self._grid_hw(image_hw)) <= self.token_budget


@dataclass(frozen=True, kw_only=True)
class TextSizes:
    """What a plan needs to know about a text tower; `context` is the length of every prompt."""

    width: Positive
    depth: Positive
    context: Positive
    mlp_ratio: Annotated[FiniteFloat, Field(gt=0)] = 4.0


def _scaled(image_hw: tuple[int, int], longer_px: int) -> tuple[int, int]:
    """Scale an image to a longer side, ratio kept; each side rounded half up, 1 at least."""
    longest = max(image_hw)
    height, width = ((2 * side * longer_px + longest) // (2 * longest) for side in image_hw)
    return max(height, 1), max(width, 1)
