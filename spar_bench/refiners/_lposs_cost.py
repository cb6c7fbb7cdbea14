"""What LPOSS costs, as `components/flops.py` counts: DINO, similarities, steps of the solver.

The propagation between pixels is element-wise, so it is not counted.
"""

from math import prod

from spar_bench.components.flops import encoder_flops
from spar_bench.components.refiner import RefinedSizes
from spar_bench.components.sizes import Sizes

_DINO = Sizes(
    patch_px=16,
    image_px=224,
    width=768,
    depth=11,  # of 12: of the last block, only the values are computed
    heads=12,
    mlp_ratio=4.0,
    channels=768,
    read_out="patch_tokens",
    odd_sides="pad",
)


def flops(refined: RefinedSizes, *, max_iterations: int, rescale: bool, **_: object) -> int:
    """Return the FLOPs of LPOSS with the graph of DINO's values, all iterations made."""
    n_patches = prod(_DINO.grid_hw(refined.seen_hw))
    dino = encoder_flops(_DINO, refined.seen_hw) + 2 * n_patches * _DINO.width**2
    n_rows = refined.n_queries + rescale
    return dino + _propagation_flops(n_patches, _DINO.width, n_rows * max_iterations)


def flops_self(refined: RefinedSizes, *, max_iterations: int, rescale: bool, **_: object) -> int:
    """Return the FLOPs of LPOSS with the graph of the backbone's own features."""
    n_rows = refined.n_queries + rescale
    return _propagation_flops(prod(refined.grid_hw), refined.channels, n_rows * max_iterations)


def _propagation_flops(n_patches: int, width: int, n_products: int) -> int:
    """Similarities, and products of the graph with one query's scores: 2n^2 (width + products)."""
    return 2 * n_patches**2 * (width + n_products)
