"""AnyUp at half its width, with weights in the package: trained here on scenes of `patchwork`.

The architecture is that of AnyUp, the weights are not: `recipes/anyup_patchwork` made them, with
features of the embedded backbone alone.
"""

from pathlib import Path

import torch

from spar_bench.components.weights import Weights
from spar_bench.refiners import anyup
from spar_bench.refiners._anyup_cost import require_settings
from spar_bench.refiners._anyup_geometry import PATCHWORK_WIDTH

VERSION = 1
BUILDS_ON = "anyup"
FLOPS = "spar_bench.refiners._anyup_cost:flops_patchwork"
NEEDS_FEATURES = True
TENSORS = "anyup_patchwork_keys.json"


class Refiner(anyup.Refiner):
    """As `anyup`, whose settings it has."""

    plugin, width = Path(__file__), PATCHWORK_WIDTH

    def __new__(cls, *_: object, of: str = "features", cell_px: int = 1, **__: object) -> "Refiner":
        """Choose by the settings what it refines: an object has no other hook."""
        require_settings(of, cell_px)
        return object.__new__(OfFeatures if of == "features" else OfScores)

    def __init__(
        self,
        device: torch.device,
        found: Weights,
        *,
        path: str = "",
        weights: str = "find",
        of: str = "features",
        cell_px: int = 1,
    ) -> None:
        super().__init__(device, found, path=path, weights=weights, of=of, cell_px=cell_px)


class OfFeatures(Refiner, anyup.OfFeatures):
    """Before the cosine."""


class OfScores(Refiner, anyup.OfScores):
    """After the cosine."""
