"""A linear probe in training: its order of images, its steps, and all that resuming needs.

Shape legend: C channels, K classes, h x w patch grid, T x U pixels of the labels.
"""

import math
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from spar_bench.datasets.base import IGNORED
from spar_bench.errors import Diverged
from spar_bench.run.linear import Weights
from spar_bench.run.optimisers import optimiser_of
from spar_bench.run.resume import (
    load_state,
    optimiser_tensors,
    restore_optimiser,
    save_state,
)
from spar_bench.run.training import learning_rate_factor, order
from spar_bench.spec.schema import ClassifierSpec

_MIRRORING = 1
"""Sets the draw of mirror images apart from that of the order."""


class Labelled(NamedTuple):
    """Standardised features `(C, h, w)` of an image, and its labels `(T, U)`."""

    features: Tensor
    labels: Tensor


@lru_cache(maxsize=2)
def mirrored(n_images: int, flip: float, seed: int, epoch: int) -> NDArray[np.bool_]:
    """Tell for each image, `(n_images,)`, whether an epoch mirrors it."""
    generator = np.random.default_rng([seed, epoch, _MIRRORING])
    return generator.random(n_images) < flip


class ProbeTraining:
    """A probe's state: everything that the next step depends on, so that resuming is exact.

    It starts from zero, since the loss is convex. `images` are the positions of those that it
    learns from, `curve` holds (step, loss, milliseconds since the epoch).
    """

    def __init__(
        self,
        recipe: ClassifierSpec,
        images: Sequence[int],
        *,
        n_classes: int,
        channels: int,
        device: torch.device,
    ) -> None:
        self.recipe, self.images = recipe, list(images)
        self.step, self.curve = 0, list[tuple[int, float, int]]()
        self._weight = nn.Parameter(torch.zeros(n_classes, channels, device=device))
        self._bias = nn.Parameter(torch.zeros(n_classes, device=device))
        self._optimiser = optimiser_of(recipe, [self._weight, self._bias])

    @property
    def weights(self) -> Weights:
        """The weights for standardised features."""
        return Weights(self._weight.detach(), self._bias.detach())

    @property
    def steps_an_epoch(self) -> int:
        """Number of steps in which each image is read once."""
        return -(-len(self.images) // self.recipe.batch)

    @property
    def n_steps(self) -> int:
        """Number of all steps."""
        return self.recipe.epochs * self.steps_an_epoch

    @property
    def final_loss(self) -> float:
        """Mean loss of the last epoch so far."""
        return float(np.mean([loss for _, loss, _ in self.curve[-self.steps_an_epoch :]]))

    @property
    def epoch(self) -> int:
        """The epoch of the next step, from 0."""
        return self.step // self.steps_an_epoch

    def upcoming(self) -> list[int]:
        """Return the images of the next step, by their positions."""
        first = self.step % self.steps_an_epoch * self.recipe.batch
        places = order(len(self.images), self.recipe.seed, self.epoch)
        return [self.images[place] for place in places[first : first + self.recipe.batch]]

    def take_step(self, batch: Sequence[Labelled]) -> None:
        """Update the weights by the mean cross entropy of all labelled pixels of a batch.

        Scores are resampled bilinearly, with pixel centres at halves, to the size of the labels.

        Raises:
            Diverged: the loss is no longer finite.
        """
        n_pixels = sum(int((labels != IGNORED).sum()) for _, labels in batch)
        losses = list[Tensor]()
        for features, labels in batch:
            scores = Weights(self._weight, self._bias).scores(features[None])
            scores = F.interpolate(scores, size=labels.shape, mode="bilinear")
            loss = F.cross_entropy(
                scores, labels[None].long(), ignore_index=IGNORED, reduction="sum"
            ) / max(n_pixels, 1)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        mean_loss = float(torch.stack(losses).sum())
        if not math.isfinite(mean_loss):
            raise self._diverged("loss", mean_loss)
        for group in self._optimiser.param_groups:
            factor = learning_rate_factor(self.recipe.schedule, self.step, self.n_steps)
            group["lr"] = self.recipe.learning_rate * factor
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self.curve.append((self.step, mean_loss, time.time_ns() // 1_000_000))
        self.step += 1

    def require_finite(self) -> None:
        """Refuse weights that the last step broke, which no loss shows.

        Raises:
            Diverged: a weight is not finite.
        """
        if not all(one.isfinite().all() for one in self.weights):
            raise self._diverged("weights", math.nan)

    def save(self, path: Path) -> None:
        """Write weights, optimiser state and place in the order as one safetensors file."""
        tensors = {name: one.cpu() for name, one in self.weights._asdict().items()}
        tensors |= optimiser_tensors(self._optimiser, "optimiser")
        save_state(path, tensors, {"step": self.step, "curve": self.curve, "images": self.images})

    def resume(self, path: Path) -> None:
        """Go back to the state that `save` wrote, if it did and learnt from the same images."""
        resumed = load_state(path)
        if resumed is None or resumed[1]["images"] != self.images:
            return
        tensors, state = resumed
        with torch.no_grad():
            self._weight.copy_(tensors["weight"])
            self._bias.copy_(tensors["bias"])
        restore_optimiser(self._optimiser, tensors, "optimiser")
        self.step, self.curve = state["step"], [tuple(point) for point in state["curve"]]

    def _diverged(self, what: str, value: float) -> Diverged:
        return Diverged(
            f"linear_probe: the {what} must stay finite, but is {value} at step {self.step} of "
            f"{self.n_steps}; lower evaluate.classifier.learning_rate "
            f"({self.recipe.learning_rate})"
        )
