"""AnyUp: features or scores at any resolution, each a weighted average of those around it.

The weights of the average come from the image and the features; one network serves features of any
backbone. Source: T. Wimmer, P. Truong, M.-J. Rakotosaona, M. Oechsle, F. Tombari, B. Schiele, J. E.
Lenssen, "AnyUp: Universal Feature Upsampling", ICLR 2026 (arXiv 2510.12764).

Shape legend: C channels, Q queries, h x w patch grid, h' x w' cells of the output.
"""

from pathlib import Path
from typing import ClassVar

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from spar_bench.components.tensors import read_listed
from spar_bench.components.weights import Weights
from spar_bench.errors import SparBenchError
from spar_bench.refiners._anyup_cost import require_settings
from spar_bench.refiners._anyup_geometry import WIDTH, cells_hw
from spar_bench.refiners._anyup_network import Network
from spar_bench.refiners.base import Guidance, Hw

VERSION = 1
FLOPS = "spar_bench.refiners._anyup_cost:flops"
NEEDS_FEATURES = True
TENSORS = "anyup_keys.json"


class Refiner:
    """Upsamples features before the cosine or scores after it, in float32.

    Args:
        of: `features` or `scores`. The weights of the average are the same; the cosine is of
            averaged features, or the average is of cosines.
        cell_px: Side of an output cell in pixels of the image as the backbone saw it.

    Raises:
        SparBenchError: a setting has no such value.
        NotReady: the weights are not AnyUp's.
    """

    plugin: ClassVar[Path] = Path(__file__)
    """The plug-in that lists the weights."""
    width: ClassVar[int] = WIDTH

    def __new__(cls, *_: object, of: str = "features", cell_px: int = 1, **__: object) -> "Refiner":
        """Choose by the settings what it refines: an object has no other hook."""
        require_settings(of, cell_px)
        return super().__new__(OfFeatures if of == "features" else OfScores)

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
        self._network = _network(found, self.plugin, self.width).to(device)
        self._cell_px = cell_px
        self.n_params = sum(parameter.numel() for parameter in self._network.parameters())

    def _upsampled(self, values: Tensor, features: Tensor, guidance: Guidance) -> Tensor:
        """Upsample values `(V, h, w)` of any meaning to `(V, h', w')`.

        Raises:
            SparBenchError: the grid is too small for the network's borders.
        """
        if min(features.shape[-2:]) < 2:
            raise SparBenchError(
                "evaluate.refiner: AnyUp must have a grid of at least 2 x 2 patches, but got "
                f"{features.shape[-2]} x {features.shape[-1]}; raise evaluate.short_side_px"
            )
        image = guidance.normalised(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        size = cells_hw((image.shape[-2], image.shape[-1]), self._cell_px)
        upsampled: Tensor = self._network(values.float(), features.float(), image.float(), size)
        return upsampled


class OfFeatures(Refiner):
    """AnyUp before the cosine."""

    def features(self, features: Tensor, guidance: Guidance, out_hw: Hw) -> Tensor:
        """Return features `(C, h', w')` for features `(C, h, w)`."""
        return self._upsampled(features, features, guidance)


class OfScores(Refiner):
    """AnyUp after the cosine."""

    def scores(
        self, scores: Tensor, features: Tensor | None, guidance: Guidance, out_hw: Hw
    ) -> Tensor:
        """Return scores `(Q, h', w')` for scores `(Q, h, w)`, weighted by features `(C, h, w)`.

        Raises:
            SparBenchError: there are no features.
        """
        if features is None:
            raise SparBenchError(
                "evaluate.refiner: AnyUp must see features, but windows averaged as logits have "
                "none; set evaluate.average: features"
            )
        return self._upsampled(scores, features, guidance)


def _network(found: Weights, plugin: Path, width: int) -> Network:
    """Return a network with random weights, or those of a file as published or from its training.

    Raises:
        NotReady: it cannot be read without running what it holds, or is not what the plug-in lists.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(found.seed)
        network = Network(width)
    if not found.is_random:
        network.load_state_dict(read_listed(plugin, found, under="anyup"))
    return network
