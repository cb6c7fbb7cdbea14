"""AnyUp's widths, output cells and attention windows, without torch: for the network and its cost.

A *cell* is what one query attends for: a pixel of the output. It sees the patches within a tenth of
the side of its centre. Tiles are runs of cells that are computed together.
"""

import struct
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

WIDTH = 128
PATCHWORK_WIDTH = 64
"""That of the network trained by `recipes/anyup_patchwork`."""
HEADS = 4
TAPS_PX = 5
"""Side of the learned kernels that summarise features, in patches."""
TILE_PATCHES = 2
"""Side of a tile, in patches: larger ones mask more of what they compute, smaller ones are many."""

_REACH = 0.1


class Tile(NamedTuple):
    """A run of cells along one side, and all the patches that any of them sees."""

    cells: slice
    patches: slice

    @property
    def n_pairs(self) -> int:
        """Products of a cell with a patch, along this side."""
        n_cells: int = self.cells.stop - self.cells.start
        n_patches: int = self.patches.stop - self.patches.start
        return n_cells * n_patches


def cells_hw(seen_hw: tuple[int, int], cell_px: int) -> tuple[int, int]:
    """Return how many equal cells, at most `cell_px` on a side, cover an image.

    Where a side is no multiple of `cell_px`, cells share the pixels that lie across their borders.
    """
    return -(-seen_hw[0] // cell_px), -(-seen_hw[1] // cell_px)


@lru_cache(maxsize=64)
def windows(n_cells: int, n_patches: int) -> tuple[range, ...]:
    """Return the patches that each cell along a side sees.

    Each step is rounded to float32 in the published order: where a product falls on an integer,
    rounding decides whether one more patch is seen.
    """
    reach, found = _float32(_REACH), []
    for cell in range(n_cells):
        centre = _float32((cell + 0.5) / n_cells)
        low = _float32(max(_float32(centre - reach), 0.0) * n_patches)
        high = _float32(min(_float32(centre + reach), 1.0) * n_patches)
        found.append(range(int(low), -int(-high // 1)))
    return tuple(found)


def tiles(n_cells: int, n_patches: int, tile_patches: int = TILE_PATCHES) -> list[Tile]:
    """Return the tiles along a side, which together hold each cell once."""
    seen = windows(n_cells, n_patches)
    starts = (-(-patch * n_cells // n_patches) for patch in range(0, n_patches, tile_patches))
    return [
        Tile(slice(start, stop), slice(seen[start].start, seen[stop - 1].stop))
        for start, stop in pairwise([*starts, n_cells])
        if start < stop
    ]


def _float32(value: float) -> float:
    """Round to the nearest float32, as one operation on float32 operands does."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
