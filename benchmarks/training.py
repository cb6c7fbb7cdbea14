"""Students side by side against one alone."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import Figure, in_turns
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.plan.making import make_plan
from spar_bench.run.context import Context
from spar_bench.run.student import make_students
from spar_bench.run.work import Worker
from spar_bench.spec import Point
from spar_bench.spec.schema import Settings
from spar_bench.stages import student
from spar_bench.store import Store

LOSSES = ["mse", "cosine", "smooth_l1", "l1"]
LOSS_RECIPES = [{"loss": loss, "trainable": "last_2_blocks"} for loss in LOSSES]
PARTS = [
    *("attention_of_last_2_blocks", "mlp_of_last_2_blocks", "last_1_blocks", "last_2_blocks"),
    *("last_3_blocks", "all"),
]
_EPOCHS, _IMAGES = 4, 6


class Students:
    """Students of the embedded world that share images and targets, which are made at once."""

    def __init__(
        self, folder: Path, recipes: Sequence[Mapping[str, Any]], *, n_images: int = _IMAGES
    ) -> None:
        points = [
            Point(f"g{index}", _settings(recipe, n_images), swept={})
            for index, recipe in enumerate(recipes)
        ]
        plan = make_plan(points, [0], None)
        self.stages = [one for one in plan.stages.values() if isinstance(one, student.Stage)]
        self._store = Store(folder)
        self._context = Context(self._store, torch.device("cpu"))
        needed = plan.needed_by({key for stage in self.stages for key in stage.inputs.values()})
        worker = Worker(WorkPlan(plan.stages, Retries()), self._context)
        for key in plan.stages:  # each after its inputs
            if key in needed:
                worker.make([plan.stages[key]], lambda _: None)

    def train(self, stages: Sequence[student.Stage]) -> None:
        """Train some of them side by side, from the beginning."""
        for stage in stages:
            self._store.discard_unfinished(stage.fingerprint)
        made = make_students(list(stages), self._context)
        failed = [one for one in made if isinstance(one, Exception)]
        if failed:
            raise failed[0]

    def gflops(self, stages: Sequence[student.Stage]) -> float:
        """Train some of them, and return what that takes, in the count that runs report."""
        before = self._context.flops
        self.train(stages)
        return (self._context.flops - before) / 1e9


def training() -> Iterator[Figure]:
    """Measure on the embedded world, as `loss.yaml` and `trainable.yaml` train."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _together(
            Students(Path(folder, "losses"), LOSS_RECIPES), name="four losses against one", bar=2.0
        )
        parts = [{"trainable": part} for part in PARTS]
        yield from _together(
            Students(Path(folder, "parts"), parts), name="six parts against the dearest", bar=2.5
        )


def _together(students: Students, *, name: str, bar: float) -> Iterator[Figure]:
    stages = students.stages
    each = {stage.title: (lambda stage=stage: students.train([stage])) for stage in stages}
    seconds = in_turns({"together": lambda: students.train(stages), **each}, rounds=3)
    alone = [seconds[title] for title in each]
    yield Figure(
        name=name,
        value=seconds["together"] / max(alone),
        bar=bar,
        how=f"{len(stages)} students side by side, over the slowest alone; "
        f"{_IMAGES} images, {_EPOCHS} epochs, targets made before",
    )
    yield Figure(
        name=f"{name.split(' against')[0]}: side by side against one after another",
        value=seconds["together"] / sum(alone),
        how="the sum of each alone, with frozen blocks kept too",
    )


def _settings(recipe: Mapping[str, Any], n_images: int) -> Settings:
    return Settings.model_validate(
        {
            "backbone": "patchwork",
            "images": {"source": "patchwork", "count": n_images, "short_side_px": [128, 320]},
            "teacher": {"window_px": 64, "stride_px": 28},
            "student": {"learning_rate": 1e-3, "epochs": _EPOCHS, **recipe},
            "measure": {"latency": False},
        }
    )
