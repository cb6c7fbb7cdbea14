"""LPOSS: scores propagated between patches that DINO finds similar, and on request pixels.

Shape legend: as in `base.py`. The implementation is our own; the method is that of
arXiv 2503.19777 (`_lposs.py`).
"""

import torch
from torch import Tensor

from spar_bench.components.weights import Weights
from spar_bench.refiners._dino import PATCH_PX, Dino
from spar_bench.refiners._lposs import Lposs, on_grid
from spar_bench.refiners.base import Guidance, Hw

VERSION = 1
FLOPS = "spar_bench.refiners._lposs_cost:flops"
TENSORS = "lposs_keys.json"
COSINES_AT_PATCH_PX = 16


class Refiner:
    """Scores on DINO's grid, or with `pixels` (LPOSS+) of every pixel that the backbone saw.

    Raises:
        NotReady: the weights are not those of DINO's ViT-B/16.
        SparBenchError: a setting is out of range.
    """

    def __init__(
        self,
        device: torch.device,
        found: Weights,
        *,
        path: str = "",
        weights: str = "find",
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
        self._dino = Dino(found, device)
        self.n_params = self._dino.n_params

    def scores(
        self, scores: Tensor, features: Tensor | None, guidance: Guidance, out_hw: Hw
    ) -> Tensor:
        """Return scores `(Q, h', w')` on DINO's grid, or `(Q, H, W)`, for scores `(Q, h, w)`."""
        values = self._dino.values(guidance)
        on_its_grid = on_grid(scores, features, (values.shape[-2], values.shape[-1]))
        return self._lposs.refined(on_its_grid, values, guidance, patch_px=PATCH_PX)
