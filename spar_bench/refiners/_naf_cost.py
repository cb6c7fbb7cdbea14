"""What NAF makes of the sizes of an image, and what that costs; without torch.

Shape legend: C channels, Q queries, h x w patch grid, H x W pixels as the backbone saw them,
h' x w' cells of the output.
"""

from spar_bench.components.refiner import RefinedSizes
from spar_bench.errors import SparBenchError, SpecError

Hw = tuple[int, int]

HEADS = 4
HEAD_WIDTH = 64
BRANCH_WIDTH = 128
"""Channels of each of the two branches that encode the image."""
SIDE = 9
"""Side of the square of patches that a cell is mixed from."""
LARGEST_CELL_PX = 4
"""Of larger cells, NAF would see the image shrunk, to a square whatever its shape."""


def refined_hw(grid_hw: Hw, seen_hw: Hw, cell_px: int) -> Hw:
    """Return the size h' x w' of the output, of cells with this side in pixels.

    Raises:
        SpecError: the side does not divide that of a patch, or is too large.
    """
    patch_hw = seen_hw[0] // grid_hw[0], seen_hw[1] // grid_hw[1]
    fitting = [
        side for side in range(1, LARGEST_CELL_PX + 1) if not any(px % side for px in patch_hw)
    ]
    if cell_px not in fitting:
        raise SpecError(
            f"evaluate.refiner.cell_px: must divide the patch, {patch_hw[0]} x {patch_hw[1]} px, "
            f"and be at most {LARGEST_CELL_PX}, but got {cell_px}; use one of "
            f"{', '.join(map(str, fitting))}"
        )
    return seen_hw[0] // cell_px, seen_hw[1] // cell_px


def require_heads(channels: int) -> None:
    """Refuse features whose channels the heads cannot share.

    Raises:
        SparBenchError: their number is no multiple of that of the heads.
    """
    if channels % HEADS:
        raise SparBenchError(
            f"evaluate.refiner: naf needs a multiple of {HEADS} channels, a share for each of its "
            f"heads, but got {channels}; use another refiner, or another backbone"
        )


def flops(refined: RefinedSizes, *, cell_px: int, **_: str) -> int:
    """Return the FLOPs of refining one image: convolutions, attention, further cosines.

    Raises:
        SparBenchError: the sizes are none that NAF can refine.
    """
    require_heads(refined.channels)
    (h, w), (height, width) = refined.grid_hw, refined.seen_hw
    rows, columns = refined_hw(refined.grid_hw, refined.seen_hw, cell_px)
    n_taps = 1 + 3 * 3
    weights = n_taps * (3 * BRANCH_WIDTH + 4 * BRANCH_WIDTH**2)
    n_seen = min(SIDE, h) * min(SIDE, w)
    mixing = n_seen * (HEADS * HEAD_WIDTH + refined.channels)
    cosines = (rows * columns - h * w) * refined.channels * refined.n_queries
    return 2 * (weights * height * width + mixing * rows * columns + cosines)
