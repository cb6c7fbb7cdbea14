"""The refiner that leaves scores as they are."""

import torch

from spar_bench.components.weights import Weights

VERSION = 1
FLOPS = "0"


class Refiner:
    """Scores as they are."""

    n_params = 0

    def __init__(self, device: torch.device, weights: Weights | None) -> None: ...
