"""Train a small AnyUp on features of the shipped backbone.

    python -m recipes.anyup_patchwork.train OUTPUT

Shape legend: C channels, h x w cells.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from recipes.anyup_patchwork.examples import Example, Lesson, draw_example, draw_lesson
from recipes.anyup_patchwork.forward import upsample
from spar_bench.backbones.patchwork import Backbone
from spar_bench.errors import Diverged
from spar_bench.files import replace_bytes, replace_text
from spar_bench.refiners._anyup_geometry import PATCHWORK_WIDTH
from spar_bench.refiners._anyup_network import Network
from spar_bench.run.context import device_name, set_threads
from spar_bench.spec.schema import BackboneSpec

STEPS = 1000
"""The number of steps by default."""
WEIGHTS_FILE = "anyup_patchwork.safetensors"
REPORT_FILE = "training.json"

_WAVES = (1 / 16, 2.0)
"""The shortest and the longest wave of positions at the start, in sides of the image."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings apart from the seed and the number of steps."""

    n_examples: int = 160
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warm_up_steps: int = 50
    clip_norm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What a training took; seconds and CPU seconds contain the drawing of examples.

    `loss` is the mean over the last tenth of the steps.
    """

    seed: int
    steps: int
    seconds: float
    cpu_seconds: float
    loss: float
    device: str
    torch: str
    recipe: dict[str, Any]

    def __str__(self) -> str:
        """Summarise it in one line."""
        return (
            f"seed {self.seed}, {self.steps} steps in {self.seconds / 60:.0f} min "
            f"({self.cpu_seconds / 60:.0f} min of {self.device}): loss {self.loss:.4f}"
        )


_RECIPE = Recipe()


def train(
    output: Path,
    *,
    steps: int,
    seed: int,
    threads: int | None = None,
    on_progress: Callable[[str], None] = print,
    recipe: Recipe = _RECIPE,
) -> TrainReport:
    """Train the network and write weights and report into the folder `output`.

    Args:
        output: Created if it does not exist.
        steps: Optimiser steps, each on a part of one example.
        seed: Decides the initial weights, the examples and their order.
        threads: CPU threads; default: torch's own choice.
        on_progress: Receives a line now and then.
        recipe: All other settings.

    Raises:
        SparBenchError: there are too many threads.
        Diverged: the loss is no longer finite.
    """
    if threads is not None:
        set_threads(threads)
    output.mkdir(parents=True, exist_ok=True)
    began, cpu_began = time.monotonic(), time.process_time()
    on_progress(f"drawing {recipe.n_examples} examples")
    backbone = Backbone(BackboneSpec(name="patchwork"))
    examples = [draw_example(backbone, index, seed) for index in range(recipe.n_examples)]
    network = new_network(seed)
    losses = _train(network, examples, steps, seed, recipe, on_progress)
    state = {name: weight.half().contiguous() for name, weight in network.state_dict().items()}
    replace_bytes(output / WEIGHTS_FILE, save(state))
    report = TrainReport(
        seed=seed,
        steps=steps,
        seconds=round(time.monotonic() - began, 1),
        cpu_seconds=round(time.process_time() - cpu_began, 1),
        loss=round(float(np.mean(losses[-max(1, steps // 10) :])), 4),
        device=device_name(torch.device("cpu")),
        torch=torch.__version__,
        recipe=asdict(recipe),
    )
    replace_text(output / REPORT_FILE, json.dumps(asdict(report), indent=2) + "\n")
    return report


def new_network(seed: int) -> Network:
    """Return a network that trains, and begins as a filter.

    Queries and keys begin as one map of pixels, which neighbours and features do not enter yet: a
    cell attends most to patches that are near and look like it.
    """
    torch.manual_seed(seed)
    network: Any = Network(PATCHWORK_WIDTH)
    with torch.no_grad():
        network.query_encoder.load_state_dict(network.key_encoder.state_dict())
        of_queries, of_keys, _ = network.cross_decode.cross_attn.attention.in_proj_weight.chunk(3)
        of_keys.copy_(of_queries)
        first, *blocks = network.aggregation
        for convolution in (network.cross_decode.conv2d, first):
            nn.init.dirac_(convolution.weight)
        for residual in blocks:
            nn.init.zeros_(residual.block[-1].weight)
        network.rope.freqs.copy_(_frequencies(PATCHWORK_WIDTH))
    trained: Network = network.requires_grad_(True)
    return trained


def _frequencies(width: int) -> Tensor:
    """Draw rotations by the row and by the column, `(2, D)`, of waves in all directions."""
    shortest, longest = _WAVES
    waves = longest * (shortest / longest) ** torch.rand(width // 2)
    directions = 2 * math.pi * torch.rand(width // 2)
    turns = torch.stack([directions.sin(), directions.cos()]) / waves
    return 2 * math.pi * turns.repeat(1, 2)


def lesson_loss(network: Network, lesson: Lesson) -> Tensor:
    """Return 1 minus the cosine plus the squared error, means over the cells of a part: `()`."""
    features, image = lesson.example.features, lesson.example.image
    found = upsample(network, features, features, image, lesson.part)
    cosine = F.cosine_similarity(found, lesson.target, dim=0).mean()
    return 1 - cosine + F.mse_loss(found, lesson.target)


def _train(
    network: Network,
    examples: list[Example],
    steps: int,
    seed: int,
    recipe: Recipe,
    on_progress: Callable[[str], None],
) -> list[float]:
    """Take all steps; returns their losses."""
    optimiser = torch.optim.AdamW(
        network.parameters(), weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    rng, losses = np.random.default_rng(seed), list[float]()
    for step in range(steps):
        lesson = draw_lesson(examples[int(rng.integers(len(examples)))], rng)
        loss = lesson_loss(network, lesson)
        if not math.isfinite(loss.item()):
            raise Diverged(
                f"training: the loss must stay finite, but is not at step {step}; use another "
                "--seed"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
        rising, falling = (step + 1) / recipe.warm_up_steps, 2 * (steps - step) / steps
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, rising, falling)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            on_progress(f"step {step + 1} of {steps}: loss {np.mean(losses[-50:]):.4f}")
    return losses


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m recipes.anyup_patchwork.train")
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's choice")
    asked = parser.parse_args()
    print(train(asked.output, steps=asked.steps, seed=asked.seed, threads=asked.threads))


if __name__ == "__main__":
    main()
