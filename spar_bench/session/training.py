"""What a student took to be made, read from the store; exact, or not said."""

from collections.abc import Mapping

from spar_bench.results import Training
from spar_bench.stage import Damaged, Finished
from spar_bench.stages import images, student, targets
from spar_bench.stages.base import Stage
from spar_bench.store import Store

_ROUNDING = 1e-6
"""Relative difference of two sums of the same FLOPs that rounding may make."""


def training_of(
    stage: Stage, finished: Finished, stages: Mapping[str, Stage], store: Store
) -> Training:
    """Return what a finished student took; nothing is known of an imported one.

    `stages` are those of the plan.
    """
    if not isinstance(stage, student.Stage):
        return Training()
    listed = stages[stage.inputs["images"]]
    assert isinstance(listed, images.Stage), "the role says which kind fills it"
    summary, made = finished.summary_as(student.Summary), finished.manifest["made"]
    whole = made.get("seconds") is not None and not _was_resumed(finished)
    teacher_within = made["gflops"] - summary.train_gflops if whole else None
    return Training(
        train_images=listed.settings.drawing.count,
        epochs=stage.settings.recipe.epochs,
        trained_params_m=summary.trained_params / 1e6,
        teach_gflops=_teach_gflops(stage, teacher_within, summary.train_gflops, store),
        train_gflops=summary.train_gflops,
        train_seconds=made["seconds"] if whole else None,
    )


def _was_resumed(finished: Finished) -> bool:
    """Tell whether steps were taken before the attempt whose time and work the manifest has."""
    try:
        curve = student.read_curve(finished)
    except Damaged:
        return True  # it cannot be told; the student itself is whole
    return curve[0][2] < int(finished.manifest["made"]["started_ms"])


def _teach_gflops(
    stage: student.Stage, within: float | None, train_gflops: float, store: Store
) -> float | None:
    """Return the teacher's part, by how it was done: `within` the training, or before it.

    `within` is None for a resumed student, whose last attempt says too little.
    """
    if within is not None and within > _ROUNDING * train_gflops:
        return within
    if within is None and not stage.places.keeps_targets:
        return None
    try:
        kept = store.opened("targets", stage.inputs["targets"])
    except Damaged:
        kept = None
    return None if kept is None else kept.summary_as(targets.Summary).gflops
