"""A linear classifier: a score for each class from plain features, as a 1x1 convolution.

Shape legend: B images, C channels, K classes, h x w patch grid.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from safetensors.torch import load_file
from torch import Tensor

from spar_bench.protocol import Protocol
from spar_bench.run.classifier import Classifier
from spar_bench.stage import Finished
from spar_bench.stages.linear_probe import PROBE_FILE

LEAST_VARIANCE = 1e-6
"""A channel counts as varying at least this share of the mean variance: else its rounding would be
magnified."""


class Standard(NamedTuple):
    """The mean and standard deviation of each channel, `(C,)` in float64."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, n_patches: int, total: Tensor, squares: Tensor) -> Self:
        """Return those of patches, from the sums of their values and of their squares, `(C,)`."""
        mean = total / n_patches
        variance = (squares / n_patches - mean**2).clamp_min(0)
        variance = variance.clamp_min(LEAST_VARIANCE * float(variance.mean()))
        return cls(mean, torch.where(variance > 0, variance, 1).sqrt())

    def apply(self, features: Tensor) -> Tensor:
        """Return features `(C, h, w)` minus the mean, by the deviation, in float32."""
        mean, deviation = (one.to(features.device, torch.float32) for one in self)
        return (features.float() - mean[:, None, None]) / deviation[:, None, None]


class Weights(NamedTuple):
    """A linear classifier's weight `(K, C)` and bias `(K,)`, in float32."""

    weight: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Return the scores `(B, K, h, w)` of features `(B, C, h, w)`, in float32."""
        products = torch.einsum("bchw,kc->bkhw", features.float(), self.weight)
        return products + self.bias[:, None, None]

    def folded(self, standard: Standard) -> "Weights":
        """Return the weights that give plain features the scores that standardised ones have."""
        weight = self.weight.cpu().double() / standard.deviation
        bias = self.bias.cpu().double() - weight @ standard.mean
        return Weights(weight.float(), bias.float())


def read_weights(probe: Finished) -> Weights:
    """Return the weights of a finished `linear_probe` stage, on the CPU."""
    return Weights(**load_file(probe.path(PROBE_FILE)))


@dataclass(frozen=True, kw_only=True)
class LinearClassifier(Classifier):
    """A linear probe: a pixel's scores are those of the classes, whose softmax is probability."""

    weights: Weights

    def scores(self, features: Tensor) -> Tensor:
        """Return scores `(B, K, h, w)` of features `(B, C, h, w)`, in float32."""
        return self.weights.scores(features)


def linear_classifier(
    weights: Weights, protocol: Protocol, device: torch.device
) -> LinearClassifier:
    """Return the classifier of a probe under a protocol, on a device."""
    n_classes = len(weights.bias)
    return LinearClassifier(
        weights=Weights(*(one.to(device) for one in weights)),
        class_of=torch.arange(n_classes, device=device),
        n_classes=n_classes,
        logit_scale=protocol.logit_scale,
        background_threshold=protocol.background_threshold,
        area_threshold=protocol.area_threshold,
    )
