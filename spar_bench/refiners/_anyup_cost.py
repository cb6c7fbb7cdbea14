"""The cost of AnyUp in closed form, and which settings it takes, without torch.

Counted as in `components/flops.py`: products with weights, and those inside attention as the tiles
of `_anyup_geometry.py` compute them, masked ones included.
"""

from math import prod

from spar_bench.components.refiner import RefinedSizes
from spar_bench.errors import SparBenchError
from spar_bench.refiners._anyup_geometry import (
    PATCHWORK_WIDTH,
    TAPS_PX,
    WIDTH,
    cells_hw,
    tiles,
)


def flops(refined: RefinedSizes, *, of: str, cell_px: int, width: int = WIDTH, **_: object) -> int:
    """Return the FLOPs of refining one image; without those on the patch grid if it refines scores.

    Raises:
        SparBenchError: a setting has no such value.
    """
    require_settings(of, cell_px)
    n_cells_hw = cells_hw(refined.seen_hw, cell_px)
    n_cells, n_patches = prod(n_cells_hw), prod(refined.grid_hw)
    pairs = prod(
        sum(tile.n_pairs for tile in tiles(cells, patches))
        for cells, patches in zip(n_cells_hw, refined.grid_hw, strict=True)
    )
    channels = refined.channels if of == "features" else refined.n_queries
    block = 2 * width**2  # a residual block, for one pixel or patch
    products = (
        prod(refined.seen_hw) * (3 * width + 2 * width**2 + 6 * block)  # three encoders
        + n_patches * (TAPS_PX**2 * width * refined.channels + 2 * block)  # summary of features
        + n_patches * (9 * 2 * width**2 + 2 * block + width**2)  # keys
        + n_cells * (9 * width**2 + width**2)  # queries
        + pairs * (width + channels)
    )
    if of == "features":
        products += (n_cells - n_patches) * refined.channels * refined.n_queries
    return 2 * products


def flops_patchwork(refined: RefinedSizes, *, of: str, cell_px: int, **_: object) -> int:
    """Return the FLOPs of refining one image with the smaller network, trained on `patchwork`.

    Raises:
        SparBenchError: a setting has no such value.
    """
    return flops(refined, of=of, cell_px=cell_px, width=PATCHWORK_WIDTH)


def require_settings(of: str, cell_px: int) -> None:
    """Refuse settings that mean nothing.

    Raises:
        SparBenchError: a setting has no such value.
    """
    if of not in ("features", "scores"):
        raise SparBenchError(
            f"evaluate.refiner.of: must be features or scores, but got {of!r}; use one of them"
        )
    if cell_px < 1:
        raise SparBenchError(
            f"evaluate.refiner.cell_px: must be at least 1, but got {cell_px}; 1 gives each pixel"
        )
