"""Distil the teacher into students: regress its features in one pass, resumable at any step.

Students that read the same images in the same order train side by side, see `lockstep.py`.
"""

import json
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from safetensors.torch import save

from spar_bench.errors import Interrupted, Pruned, StoreError, Unreadable
from spar_bench.files import replace_bytes, replace_text
from spar_bench.run.context import Context
from spar_bench.run.distributed import LeftOff, OutOfStep
from spar_bench.run.lockstep import Run, diverged, train
from spar_bench.stages import student
from spar_bench.stages.base import stage_from_json

log = logging.getLogger(__name__)


def make_students(
    stages: list[student.Stage], context: Context
) -> list[student.Summary | Exception]:
    """Train students of one `batch_key` side by side; writes what was trained, and loss curves.

    One that diverges or fails leaves the others alone.
    """
    try:
        return _make_students(stages, context)
    except Exception as error:
        if _ends_all(error):
            raise
        if len(stages) == 1:
            return [error]
        reason = (str(error) or type(error).__name__).splitlines()[0]
        log.warning("%d students fail together (%s): each goes on alone", len(stages), reason)
    return [made for stage in stages for made in make_students([stage], context)]


def _ends_all(error: Exception) -> bool:
    """Return whether an error is no student's own; a file of one that cannot be read now is."""
    is_shared = isinstance(error, (Interrupted, Pruned, StoreError, OutOfStep))
    return is_shared and not isinstance(error, Unreadable)


def _make_students(
    stages: list[student.Stage], context: Context
) -> list[student.Summary | Exception]:
    store = context.store
    folders = [store.scratch(stage) for stage in stages]
    context.ranks.say(
        {
            "stages": [stage.to_json() for stage in stages],
            "scratch": [str(folder.relative_to(store.root)) for folder in folders],
        }
    )
    runs = train(stages, context, folders)
    return [_finish(run, context) for run in runs]


def _finish(run: Run, context: Context) -> student.Summary | Exception:
    """Write what a student learnt, or return why it has learnt nothing."""
    training, stage = run.training, run.stage
    if run.failure is None and not all(one.isfinite().all() for one in training.trained().values()):
        # By the last step: no loss shows it.
        run.failure = diverged("weights", math.nan, training, training.step)
    if run.failure is not None:
        return run.failure
    output = context.store.output(stage)
    replace_bytes(output / student.TRAINED_FILE, save(training.trained()))
    replace_text(output / student.CURVE_FILE, json.dumps(training.curve))
    last_epoch = training.curve[-training.steps_an_epoch :]
    return student.Summary(
        n_steps=training.n_steps,
        trained_params=sum(p.numel() for p in training.parameters),
        final_loss=float(np.mean([loss for _, loss, _ in last_epoch])),
        train_gflops=training.gflops,
        teach_gflops=training.teach_gflops,
        train_seconds=training.seconds,
        backbone=stage.places.backbone,
    )


def join_students(value: Mapping[str, Any], context: Context) -> None:
    """Train the students that the first process named; that one keeps results and errors."""
    context.flops = 0.0
    stages = list[student.Stage]()
    for one in value["stages"]:
        stage = stage_from_json(one)
        assert isinstance(stage, student.Stage), "only students are trained together"
        stages.append(stage)
    with suppress(LeftOff):
        train(stages, context, [context.store.root / folder for folder in value["scratch"]])
