"""The contract of a refiner plug-in, which sharpens features or scores by the image's pixels.

Shape legend: C channels, Q queries, h x w patch grid, H x W pixels as the backbone saw them, T x U
pixels of the labels.

It is constructed as `Refiner(device, weights, **settings)`, `weights` being where they lie if it
states `TENSORS`, or the data file of its name says where they come from, else None.

If it has weights, it may have the settings `path: str = ""` and `weights: str = "find"`, of which
the rest of the code makes `Weights`: they lie at the path, or are random.

A module may state, as literals that are read without running it, since plans need them:

    FLOPS = "2 * h * w * C"           the operations of refining one image, 1 multiply-add being 2
    FLOPS = "my_package.cost:flops"   the same by a function of a module without torch
    NEEDS_FEATURES = True             it cannot work where windows are averaged as scores
    TENSORS = "keys.json"             a file beside it that maps its weights' names to shapes
    COSINES_AT_PATCH_PX = 16          it resamples scores to a grid of such patches as cosines, and
                                      a linear probe's are none

A formula is in the sizes of the legend and in settings, with `+ - * // **`; a function receives
`components.refiner.RefinedSizes`, and all settings by keyword. Products of refined features with
queries, as far as they exceed those on the patch grid, are part of refining. Without `FLOPS`, a row
has no GFLOPs. An object with weights has `n_params`, their number; without it, a row has no
parameters.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from spar_bench.components.weights import Channels

Hw = tuple[int, int]


@dataclass(frozen=True)
class Guidance:
    """The pixels exactly as the backbone saw them, `(3, H, W)`: padded, cropped or stretched.

    They are normalised with `mean` and `std`; H and W are whole patches.
    """

    pixels: Tensor
    mean: Channels
    std: Channels

    def normalised(self, mean: Channels, std: Channels) -> Tensor:
        """Return the pixels normalised in another way, `(3, H, W)`."""
        old_mean, old_std, new_mean, new_std = (
            torch.tensor(channels, device=self.pixels.device).view(3, 1, 1)
            for channels in (self.mean, self.std, mean, std)
        )
        return (self.pixels * old_std + old_mean - new_mean) / new_std


@runtime_checkable
class RefinesFeatures(Protocol):
    """A refiner of features, before they are compared with the queries."""

    def features(self, features: Tensor, guidance: Guidance, out_hw: Hw) -> Tensor:
        """Return features `(C, h', w')` of any size for features `(C, h, w)`; labels are `out_hw`.

        Not called where windows are averaged as scores: then there is no map of features.
        """
        ...


@runtime_checkable
class RefinesScores(Protocol):
    """A refiner of scores, after the comparison with the queries."""

    def scores(
        self, scores: Tensor, features: Tensor | None, guidance: Guidance, out_hw: Hw
    ) -> Tensor:
        """Return scores `(Q, h', w')` of any size for scores `(Q, h, w)`; labels are `out_hw`.

        `features` are those that the scores are of, or None where windows are averaged as scores.
        """
        ...
