"""LPOSS without a second model: the backbone's own dense features tell what is similar.

Shape legend: as in `base.py`. It is not the published method, and is so named.
"""

import torch
from torch import Tensor

from spar_bench.components.weights import Weights
from spar_bench.errors import SparBenchError
from spar_bench.refiners._lposs import Lposs
from spar_bench.refiners.base import Guidance, Hw

VERSION = 1
BUILDS_ON = "lposs"
NEEDS_FEATURES = True
FLOPS = "spar_bench.refiners._lposs_cost:flops_self"


class Refiner:
    """Scores on the backbone's grid, or with `pixels` of every pixel that it saw.

    Raises:
        SparBenchError: a setting is out of range.
    """

    n_params = 0

    def __init__(
        self,
        device: torch.device,
        found: Weights | None,
        *,
        alpha: float = 0.95,
        gamma: float = 3.0,
        k: int = 400,
        sigma: float = 0.01,
        max_iterations: int = 10,
        tolerance: float = 1e-6,
        rescale: bool = False,
        pixels: bool = False,
        neighbourhood_px: int = 13,
        tau: float = 0.01,
    ) -> None:
        self._lposs = Lposs.of(
            alpha=alpha,
            gamma=gamma,
            k=k,
            sigma=sigma,
            max_iterations=max_iterations,
            tolerance=tolerance,
            rescale=rescale,
            pixels=pixels,
            neighbourhood_px=neighbourhood_px,
            tau=tau,
        )

    def scores(
        self, scores: Tensor, features: Tensor | None, guidance: Guidance, out_hw: Hw
    ) -> Tensor:
        """Return scores `(Q, h, w)`, or `(Q, H, W)`, for scores `(Q, h, w)` and their features.

        Raises:
            SparBenchError: there are no features, since windows are averaged as logits.
        """
        if features is None:
            raise SparBenchError(
                "evaluate.average: must be features where scores are refined by lposs_self, whose "
                "graph is of features, but got logits; set it, or use lposs"
            )
        patch_px = guidance.pixels.shape[-1] // features.shape[-1]
        return self._lposs.refined(scores, features, guidance, patch_px=patch_px)
