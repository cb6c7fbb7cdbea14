"""NAF: features of any backbone at the image's resolution, mixed as the image alone says.

Source: Chambon et al., arXiv 2511.18452; a sharp image says which of the patches around a cell
belong with it, and heads mix channels of their own, so that text cannot be multiplied in before.

Memory, besides features and output: 3 KiB for each pixel that the backbone saw, and 64 MiB.
"""

import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from spar_bench.components.weights import Weights
from spar_bench.refiners._naf import load, mixed
from spar_bench.refiners._naf_cost import Hw, refined_hw, require_heads
from spar_bench.refiners.base import Guidance

VERSION = 1
FLOPS = "spar_bench.refiners._naf_cost:flops"
NEEDS_FEATURES = True
TENSORS = "naf_keys.json"


class Refiner:
    """NAF with its published weights; `cell_px` is the side of an output cell in pixels."""

    def __init__(
        self,
        device: torch.device,
        found: Weights,
        *,
        path: str = "",
        weights: str = "find",
        cell_px: int = 1,
    ) -> None:
        self._network = load(found).to(device)
        self._cell_px = cell_px
        self.n_params = sum(parameter.numel() for parameter in self._network.parameters())

    def features(self, features: Tensor, guidance: Guidance, out_hw: Hw) -> Tensor:
        """Return features `(C, h', w')` of the image's cells, in float32, for features `(C, h, w)`.

        Raises:
            SparBenchError: C is no multiple of 4, or the cells do not divide a patch.
        """
        (channels, h, w), (height, width) = features.shape, guidance.pixels.shape[1:]
        require_heads(channels)
        cells_hw = refined_hw((h, w), (height, width), self._cell_px)
        with torch.no_grad():
            pixels = guidance.normalised(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
            queries = self._network(pixels, cells_hw)
            keys = F.adaptive_avg_pool2d(queries, (h, w))
            return mixed(queries, keys, features.float())  # which half precision may have made
