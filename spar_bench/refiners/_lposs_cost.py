"""What LPOSS costs, as `components/flops.py` counts, and which settings it takes; without torch.

Counted are DINO, similarities and steps of the solver. The propagation between pixels is
element-wise, so it is not.
"""

from math import prod
from typing import Any

from spar_bench.components.flops import encoder_flops
from spar_bench.components.refiner import RefinedSizes
from spar_bench.components.sizes import Sizes
from spar_bench.errors import SparBenchError

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


def flops(refined: RefinedSizes, **settings: Any) -> int:
    """Return the FLOPs of LPOSS with the graph of DINO's values, all iterations made.

    Raises:
        SparBenchError: a setting is out of range.
    """
    n_products = _products(refined, **settings)
    n_patches = prod(_DINO.grid_hw(refined.seen_hw))
    dino = encoder_flops(_DINO, refined.seen_hw) + 2 * n_patches * _DINO.width**2
    return dino + _propagation_flops(n_patches, _DINO.width, n_products)


def flops_self(refined: RefinedSizes, **settings: Any) -> int:
    """Return the FLOPs of LPOSS with the graph of the backbone's own features.

    Raises:
        SparBenchError: a setting is out of range.
    """
    n_products = _products(refined, **settings)
    return _propagation_flops(prod(refined.grid_hw), refined.channels, n_products)


def require_settings(
    *,
    alpha: float,
    gamma: float,
    k: int,
    sigma: float,
    max_iterations: int,
    tolerance: float,
    neighbourhood_px: int,
    tau: float,
    **_: object,
) -> None:
    """Refuse settings that are out of range.

    Raises:
        SparBenchError: one is.
    """
    is_odd = neighbourhood_px >= 1 and neighbourhood_px % 2 == 1
    for setting, value, is_met, rule in [
        ("alpha", alpha, 0 <= alpha < 1, "at least 0 and less than 1"),
        ("max_iterations", max_iterations, max_iterations >= 1, "at least 1"),
        ("tolerance", tolerance, tolerance >= 0, "at least 0"),
        ("k", k, k >= 1, "at least 1"),
        ("gamma", gamma, gamma > 0, "more than 0"),
        ("sigma", sigma, sigma >= 0, "at least 0"),
        ("neighbourhood_px", neighbourhood_px, is_odd, "odd and at least 1"),
        ("tau", tau, tau > 0, "more than 0"),
    ]:
        if not is_met:
            raise SparBenchError(
                f"evaluate.refiner.{setting}: must be {rule}, but got {value}; correct it"
            )


def _products(refined: RefinedSizes, **settings: Any) -> int:
    """Return the products of the graph with one query's scores that settings ask for."""
    require_settings(**settings)
    n_products: int = (refined.n_queries + settings["rescale"]) * settings["max_iterations"]
    return n_products


def _propagation_flops(n_patches: int, width: int, n_products: int) -> int:
    """Similarities, and products of the graph with one query's scores: 2n^2 (width + products)."""
    return 2 * n_patches**2 * (width + n_products)
