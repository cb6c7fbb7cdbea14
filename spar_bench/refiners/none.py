"""The refiner that leaves scores as they are."""

import torch

from spar_bench.components.weights import Weights
from spar_bench.refiners.base import Hw

VERSION = 1


class Refiner:
    """Scores as they are."""

    n_params = 0

    def __init__(self, device: torch.device, weights: Weights | None) -> None: ...

    def flops(self, grid_hw: Hw, image_hw: Hw, out_hw: Hw, *, channels: int, n_queries: int) -> int:
        """Return 0."""
        return 0
