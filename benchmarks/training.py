"""Students side by side against one alone."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import Figure, in_turns
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.plan.making import make_plan
from spar_bench.plan.trials import Plan
from spar_bench.run.context import Context
from spar_bench.run.student import make_students
from spar_bench.run.work import Worker
from spar_bench.spec import Point
from spar_bench.spec.schema import Settings
from spar_bench.stages import student
from spar_bench.store import Store

LOSSES = ["mse", "cosine", "smooth_l1", "l1"]
PARTS = [
    *("attention_of_last_2_blocks", "mlp_of_last_2_blocks", "last_1_blocks", "last_2_blocks"),
    *("last_3_blocks", "all"),
]
_EPOCHS, _IMAGES = 4, 6


def training() -> Iterator[Figure]:
    """Measure on the embedded world, as `loss.yaml` and `trainable.yaml` train."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _together(
            Store(Path(folder, "losses")),
            [{"loss": loss, "trainable": "last_2_blocks"} for loss in LOSSES],
            name="four losses against one",
            bar=2.0,
        )
        yield from _together(
            Store(Path(folder, "parts")),
            [{"trainable": part} for part in PARTS],
            name="six parts against the dearest",
            bar=2.5,
        )


def _together(
    store: Store, recipes: list[Mapping[str, Any]], *, name: str, bar: float
) -> Iterator[Figure]:
    points = [
        Point(f"g{index}", _settings(recipe), swept={}) for index, recipe in enumerate(recipes)
    ]
    plan = make_plan(points, [0], None)
    students = [stage for stage in plan.stages.values() if isinstance(stage, student.Stage)]
    context = Context(store, torch.device("cpu"))
    _make({key for stage in students for key in stage.inputs.values()}, plan, context)

    def train(stages: list[student.Stage]) -> None:
        for stage in stages:
            store.discard_unfinished(stage.fingerprint)
        failed = [one for one in make_students(stages, context) if isinstance(one, Exception)]
        if failed:
            raise failed[0]

    each = {stage.title: (lambda stage=stage: train([stage])) for stage in students}
    seconds = in_turns({"together": lambda: train(students), **each}, rounds=3)
    alone = [seconds[title] for title in each]
    yield Figure(
        name=name,
        value=seconds["together"] / max(alone),
        bar=bar,
        how=f"{len(students)} students side by side, over the slowest alone; "
        f"{_IMAGES} images, {_EPOCHS} epochs, targets made before",
    )
    yield Figure(
        name=f"{name.split(' against')[0]}: side by side against one after another",
        value=seconds["together"] / sum(alone),
        how="the sum of each alone, with frozen blocks kept too",
    )


def _make(needed: set[str], plan: Plan, context: Context) -> None:
    """Make what students are made from."""
    worker, lacking = Worker(WorkPlan(plan.stages, Retries()), context), plan.needed_by(needed)
    for key in plan.stages:  # each after its inputs
        if key in lacking:
            worker.make([plan.stages[key]], lambda _: None)


def _settings(recipe: Mapping[str, Any]) -> Settings:
    return Settings.model_validate(
        {
            "backbone": "patchwork",
            "images": {"source": "patchwork", "count": _IMAGES, "short_side_px": [128, 320]},
            "teacher": {"window_px": 64, "stride_px": 28},
            "student": {"learning_rate": 1e-3, "epochs": _EPOCHS, **recipe},
            "measure": {"latency": False},
        }
    )
