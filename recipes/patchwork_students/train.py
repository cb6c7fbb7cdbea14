"""Train a student of `patchwork` on shards: the recipe of the students in the package.

python -m recipes.patchwork_students.train OUTPUT --trainable all
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from recipes.patchwork.pretrain import validation_miou
from recipes.patchwork.training import learning_rate_share
from recipes.patchwork_students.shards import N_SHARDS, SIZES_HW, STEPS, n_scenes, posed, read_shard
from spar_bench.backbones.patchwork import Backbone
from spar_bench.errors import Diverged, SparBenchError
from spar_bench.files import replace_bytes, replace_text
from spar_bench.run.context import autocast, device_name, set_threads
from spar_bench.run.images import normalise
from spar_bench.run.muon import Muon
from spar_bench.run.resume import load_state, optimiser_tensors, restore_optimiser, save_state
from spar_bench.run.trainable import set_trainable
from spar_bench.spec.schema import BackboneSpec

CHECKPOINT_FILE = "checkpoint.safetensors"
REPORT_FILE = "training.json"
SHARDS_FOLDER = "shards"
TEACHER_STRIDE_PX = 12
_SAVE_EVERY = 5


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings apart from what trains.

    A shard is read `times`, each time a round of sizes later.
    """

    shards: int = N_SHARDS
    times: int = 4
    matrix_learning_rate: float = 8e-3
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warm_up_steps: int = 200
    decay_share: float = 0.409
    clip_norm: float = 1.0
    seed: int = 1

    @property
    def rounds(self) -> int:
        """How often shards are taken together: one that is new, and those read before."""
        return self.shards + len(SIZES_HW) * (self.times - 1)

    @property
    def steps(self) -> int:
        return self.shards * self.times * STEPS

    def taken(self, turn: int) -> list[int]:
        """Return the shards of a round, the newest first."""
        lags = (len(SIZES_HW) * lag for lag in range(self.times))
        return [turn - lag for lag in lags if 0 <= turn - lag < self.shards]


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What a training took, and what the student reads on all validation scenes.

    `seconds` are those of the steps alone. mIoU are fractions: the student's in one pass, and the
    teacher's at stride 12, cosines averaged at pixels. `curve` has the mean loss of each round.
    """

    trainable: str
    steps: int
    images: int
    passes: int
    seconds: float
    miou: float
    teacher_miou: float
    device: str
    torch: str
    recipe: dict[str, Any]
    curve: list[float]

    def __str__(self) -> str:
        """Summarise it in one line."""
        return (
            f"{self.trainable}: {self.steps} steps over {self.images} scenes in "
            f"{self.seconds / 60:.0f} min ({self.device}): mIoU {100 * self.miou:.1f} % in one "
            f"pass, {100 * self.teacher_miou:.1f} % by windows"
        )


class Training:
    """A student, its optimisers, and their progress, saved exactly."""

    def __init__(self, trainable: str, recipe: Recipe) -> None:
        self.trainable, self.recipe = trainable, recipe
        self.turn, self.step, self.seconds = 0, 0, 0.0
        self.curve = list[float]()
        self.backbone = Backbone(BackboneSpec(name="patchwork"))
        set_trainable(self.backbone, trainable)
        self.named = {n: p for n, p in self.backbone.visual.named_parameters() if p.requires_grad}
        matrices = {n: p for n, p in self.named.items() if p.ndim == 2 and "resblocks" in n}
        others = [p for n, p in self.named.items() if n not in matrices]
        decay = recipe.weight_decay
        self.peaks = {
            Muon(
                matrices.values(),
                lr=recipe.matrix_learning_rate,
                weight_decay=decay,
                scale="original",
            ): recipe.matrix_learning_rate,
            torch.optim.AdamW(
                others, lr=recipe.learning_rate, weight_decay=decay
            ): recipe.learning_rate,
        }

    def learn(self, images: Tensor, targets: Tensor) -> float:
        """Take one step on images `(B, 3, H, W)` in uint8; return the loss: 1 minus the cosine.

        Raises:
            Diverged: it is not finite.
        """
        backbone = self.backbone
        seen = normalise(images.float() / 255, backbone.mean, backbone.std)
        with autocast(seen.device, "bfloat16"):
            features = backbone.features(seen)
        loss = 1 - F.cosine_similarity(features.float(), targets.float(), dim=1).mean()
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(
                f"training: the loss must stay finite, but is {value} at step {self.step}; lower "
                "the learning rates"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.named.values(), self.recipe.clip_norm)
        for optimiser, peak in self.peaks.items():
            for group in optimiser.param_groups:
                group["lr"] = peak * self.learning_rate_share()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return value

    def learning_rate_share(self) -> float:
        """Return the learning rate as a share of its peak: up, constant, down to zero."""
        recipe = self.recipe
        return learning_rate_share(
            self.step, recipe.steps, recipe.warm_up_steps, recipe.decay_share
        )

    def save(self, path: Path) -> None:
        """Write everything that later steps depend on."""
        tensors = {f"weight/{name}": p.detach() for name, p in self.named.items()}
        for place, optimiser in enumerate(self.peaks):
            tensors |= optimiser_tensors(optimiser, f"optimiser{place}")
        progress = {"turn": self.turn, "step": self.step, "seconds": self.seconds}
        save_state(path, tensors, {**self._asked(), **progress, "curve": self.curve})

    def resume(self, path: Path) -> None:
        """Resume from what `save` wrote, if it did.

        Raises:
            SparBenchError: it is of a training with other settings.
        """
        saved = load_state(path)
        if saved is None:
            return
        tensors, state = saved
        if any(state[key] != value for key, value in self._asked().items()):
            raise SparBenchError(
                f"{path}: must be of the same recipe, training {self.trainable}, but trains "
                f"{state['trainable']}; name another folder, or delete it"
            )
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(tensors[f"weight/{name}"])
        for place, optimiser in enumerate(self.peaks):
            restore_optimiser(optimiser, tensors, f"optimiser{place}")
        self.turn, self.step = state["turn"], state["step"]
        self.seconds, self.curve = state["seconds"], state["curve"]

    def _asked(self) -> dict[str, Any]:
        return {"trainable": self.trainable, "recipe": asdict(self.recipe)}


_RECIPE = Recipe()


def train(
    output: Path,
    *,
    trainable: str,
    shards: Path | None = None,
    threads: int | None = None,
    on_progress: Callable[[str], None] = print,
    recipe: Recipe = _RECIPE,
    n_images: int | None = None,
) -> TrainReport:
    """Train a student and write its image tower and a report into the folder `output`.

    Resumes from the checkpoint that an earlier call left there.

    Args:
        output: Created if it does not exist.
        trainable: What trains, as in a spec.
        shards: A folder of shards; those that it lacks are written; default: one in `output`.
        threads: CPU threads; default: torch's own choice.
        on_progress: Receives a line now and then.
        recipe: All other settings.
        n_images: Read only the first validation scenes; default: all 48.

    Raises:
        SparBenchError: the checkpoint is of another recipe, or there are too many threads.
        Diverged: the loss is no longer finite.
    """
    if threads is not None:
        set_threads(threads)
    shards = output / SHARDS_FOLDER if shards is None else shards
    for folder in (output, shards):
        folder.mkdir(parents=True, exist_ok=True)
    state = Training(trainable, recipe)
    state.resume(output / CHECKPOINT_FILE)
    teacher = Backbone(BackboneSpec(name="patchwork"))
    while state.turn < recipe.rounds:
        began, losses = time.monotonic(), list[float]()
        for images, targets in _batches(state, shards, teacher):
            losses.append(state.learn(images, targets))
        state.turn += 1
        state.seconds += time.monotonic() - began
        state.curve.append(round(float(np.mean(losses)), 5))
        on_progress(f"step {state.step} of {recipe.steps}: loss {state.curve[-1]:.4f}")
        if state.turn % _SAVE_EVERY == 0 or state.turn == recipe.rounds:
            state.save(output / CHECKPOINT_FILE)
    return _finish(state, output, n_images)


def _batches(state: Training, shards: Path, teacher: Backbone) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the steps of a round: images and targets, posed alike, of all its shards mixed."""
    taken = state.recipe.taken(state.turn)
    rng = np.random.default_rng([state.recipe.seed, state.turn])
    read = {index: read_shard(shards, index, teacher) for index in taken}
    steps = [
        (index, torch.from_numpy(places))
        for index in taken
        for places in np.array_split(rng.permutation(len(read[index].images)), STEPS)
    ]
    for place in rng.permutation(len(steps)):
        index, places = steps[place]
        pose = int(rng.integers(8))
        images, targets = (posed(maps[places], pose) for maps in read[index])
        yield images, targets


def _finish(state: Training, output: Path, n_images: int | None) -> TrainReport:
    """Write the student in half precision; read the validation scenes with it as written."""
    backbone, recipe = state.backbone, state.recipe
    [_, teacher_miou] = validation_miou(
        Backbone(BackboneSpec(name="patchwork")), [TEACHER_STRIDE_PX], n_images=n_images
    )
    tower = {n: w.detach().half().contiguous() for n, w in backbone.visual.state_dict().items()}
    replace_bytes(output / f"{state.trainable}.safetensors", save(tower))
    backbone.load_visual({name: weight.float() for name, weight in tower.items()})
    [miou] = validation_miou(backbone, [], n_images=n_images)
    images = sum(map(n_scenes, range(recipe.shards)))
    report = TrainReport(
        trainable=state.trainable,
        steps=state.step,
        images=images,
        passes=recipe.times * images,
        seconds=round(state.seconds, 1),
        miou=round(miou, 4),
        teacher_miou=round(teacher_miou, 4),
        device=device_name(torch.device("cpu")),
        torch=torch.__version__,
        recipe=asdict(recipe),
        curve=state.curve,
    )
    replace_text(output / REPORT_FILE, json.dumps(asdict(report), indent=2) + "\n")
    return report


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m recipes.patchwork_students.train")
    parser.add_argument("output", type=Path, help="an interrupted attempt resumes in it")
    parser.add_argument("--trainable", default="all", help="default: %(default)s")
    parser.add_argument("--shards", type=Path, help="a folder of them; default: one in OUTPUT")
    parser.add_argument("--times", type=int, default=_RECIPE.times, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's choice")
    asked = parser.parse_args()
    report = train(
        asked.output,
        trainable=asked.trainable,
        shards=asked.shards,
        threads=asked.threads,
        recipe=Recipe(times=asked.times),
    )
    print(report)


if __name__ == "__main__":
    main()
