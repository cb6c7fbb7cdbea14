"""A student in training: its schedule, its order of images, and all that resuming needs."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import assert_never

import numpy as np
import torch
from torch import Tensor, nn

from spar_bench.backbones.base import Backbone
from spar_bench.run.optimisers import optimisers_of
from spar_bench.run.resume import (
    load_state,
    optimiser_tensors,
    restore_optimiser,
    save_state,
)
from spar_bench.run.trainable import set_trainable
from spar_bench.spec.schema import StudentSpec
from spar_bench.values import Schedule

ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 250_000


def learning_rate_factor(schedule: Schedule, step: int, n_steps: int) -> float:
    """Return the factor on the learning rate at a step, 0 to n_steps - 1.

    `one_cycle` rises by a half cosine from 1/25 over the first 30 %, then falls to 1/250000;
    `cosine` falls from 1 to 0. Source: torch's OneCycleLR with its defaults, without momentum
    cycling.
    """
    match schedule:
        case "constant":
            return 1.0
        case "cosine":
            return _half_cosine(1.0, 0.0, step / n_steps)
        case "one_cycle":
            rise = ONE_CYCLE_RISE * n_steps - 1
            if step <= rise:
                return _half_cosine(ONE_CYCLE_START, 1.0, step / rise)
            return _half_cosine(1.0, ONE_CYCLE_END, (step - rise) / (n_steps - 1 - rise))
        case _:
            assert_never(schedule)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


@lru_cache(maxsize=2)
def order(n_images: int, seed: int, epoch: int) -> tuple[int, ...]:
    """Return the order of images in an epoch, decided only by seed and epoch."""
    return tuple(np.random.default_rng([seed, epoch]).permutation(n_images).tolist())


@dataclass
class Training:
    """A student's state: everything that the next step depends on, so that resuming is exact.

    `n_images` are read in an epoch: those of the next of `n_lists` lists, or of the only one.
    `gflops` and `seconds` are what training has taken so far, `teach_gflops` what the teacher took
    meanwhile. `curve` holds (step, loss, milliseconds since the epoch).
    """

    backbone: Backbone
    spec: StudentSpec
    seed: int
    n_images: int
    n_lists: int = 1
    step: int = 0
    gflops: float = 0.0
    teach_gflops: float = 0.0
    seconds: float = 0.0
    curve: list[tuple[int, float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters = set_trainable(self.backbone, self.spec.trainable)
        self.optimisers = optimisers_of(self.spec, self.backbone, self.parameters)
        device = self.parameters[0].device.type
        self.scaler = torch.amp.GradScaler(device, enabled=self.spec.precision == "float16")

    @property
    def steps_an_epoch(self) -> int:
        return self.spec.steps_an_epoch(self.n_images)

    @property
    def n_steps(self) -> int:
        return self.spec.epochs * self.steps_an_epoch

    @property
    def ends_epoch(self) -> bool:
        return self.step % self.steps_an_epoch == 0

    @property
    def epoch_loss(self) -> tuple[int, float]:
        losses = [loss for _, loss, _ in self.curve[-self.steps_an_epoch :]]
        return self.step // self.steps_an_epoch, float(np.mean(losses))

    def positions(self, step: int) -> tuple[int, ...]:
        """Return the images that make up a step, by their positions in the drawn list."""
        epoch, within = divmod(step, self.steps_an_epoch)
        first = within * self.spec.accumulate
        chosen = order(self.n_images, self.seed, epoch)[first : first + self.spec.accumulate]
        before = epoch % self.n_lists * self.n_images
        return tuple(before + position for position in chosen)

    def upcoming(self, first: int, own: Callable[[int], range]) -> Iterator[int]:
        """Yield the images of all steps from the first; of each step, those that `own` selects."""
        for step in range(first, self.n_steps):
            positions = self.positions(step)
            yield from (positions[place] for place in own(len(positions)))

    def update(self) -> None:
        """Update the weights once, by the gradients that they have."""
        factor = learning_rate_factor(self.spec.schedule, self.step, self.n_steps)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = self.spec.learning_rate * factor
            self.scaler.step(optimiser)  # in float16, not if a gradient of its own overflowed
            optimiser.zero_grad(set_to_none=True)
        self.scaler.update()
        self.step += 1

    def trained(self) -> dict[str, Tensor]:
        """Return what trains, by name in the image tower."""
        named = self.backbone.visual.named_parameters()
        return {n: p.detach().cpu().contiguous() for n, p in named if p.requires_grad}

    def save(self, path: Path) -> None:
        """Write weights, optimiser state and place in the order as one safetensors file."""
        tensors = {f"weight/{name}": value for name, value in self.trained().items()}
        for name, optimiser in self.optimisers.items():
            tensors |= optimiser_tensors(optimiser, name)
        state = {
            "step": self.step,
            "gflops": self.gflops,
            "teach_gflops": self.teach_gflops,
            "seconds": self.seconds,
            "curve": self.curve,
            "scaler": self.scaler.state_dict(),
        }
        save_state(path, tensors, state)

    def resume(self, path: Path) -> None:
        """Go back to the state that `save` wrote, if it did."""
        resumed = load_state(path)
        if resumed is None:
            return
        tensors, state = resumed
        named: dict[str, nn.Parameter] = dict(self.backbone.visual.named_parameters())
        with torch.no_grad():
            for name, tensor in tensors.items():
                if name.startswith("weight/"):
                    named[name.removeprefix("weight/")].copy_(tensor)
        for name, optimiser in self.optimisers.items():
            restore_optimiser(optimiser, tensors, name)
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.gflops = state["step"], state["gflops"]
        self.teach_gflops, self.seconds = state["teach_gflops"], state["seconds"]
        self.curve = [tuple(point) for point in state["curve"]]
