"""LPOSS: scores propagated between patches that DINO finds similar, and on request pixels.

Shape legend: as in `base.py`. The implementation is our own; the method is that of
arXiv 2503.19777 (`_lposs.py`).
"""

import torch
from torch import Tensor

from spar_bench.components.weights import Weights
from spar_bench.refiners._dino import PATCH_PX, Dino
from spar_bench.refiners._lposs import Lposs, on_grid
from spar_bench.refiners._patch_graph import PatchGraph
from spar_bench.refiners._pixel_graph import PixelGraph
from spar_bench.refiners._propagation import Propagation
from spar_bench.refiners.base import Guidance, Hw

VERSION = 1
FLOPS = "spar_bench.refiners._lposs_cost:flops"


class Refiner:
    """Scores on DINO's grid, or with `pixels` (LPOSS+) of every pixel that the backbone saw.

    Raises:
        NotReady: the weights are not those of DINO's ViT-B/16.
        SparBenchError: a setting is out of range.
    """

    def __init__(
        self,
        device: torch.device,
        found: Weights | None,
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
        assert found is not None, "lposs.yaml says where weights come from"
        self._lposs = Lposs(
            patches=PatchGraph(k=k, gamma=gamma, sigma=sigma),
            pixels=PixelGraph(neighbourhood_px=neighbourhood_px, tau=tau) if pixels else None,
            propagation=Propagation(
                alpha=alpha, max_iterations=max_iterations, tolerance=tolerance, rescale=rescale
            ),
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
