"""What a student took to be made, read from the store; exact, or not said."""

from collections.abc import Mapping

from spar_bench.results import Training
from spar_bench.stage import Damaged, Finished
from spar_bench.stages import images, student, targets
from spar_bench.stages.base import Stage
from spar_bench.store import Store


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
    summary = finished.summary_as(student.Summary)
    return Training(
        train_images=listed.settings.drawing.count,
        epochs=stage.settings.recipe.epochs // stage.settings.n_lists,
        trained_params_m=summary.trained_params / 1e6,
        teach_gflops=summary.teach_gflops or _of_kept_targets(stage, store),
        train_gflops=summary.train_gflops,
        train_seconds=summary.train_seconds,
    )


def _of_kept_targets(stage: student.Stage, store: Store) -> float | None:
    """Return the work of the teacher whose features a student read from the store."""
    try:
        kept = store.opened("targets", stage.inputs["targets"])
    except Damaged:
        kept = None
    return None if kept is None else kept.summary_as(targets.Summary).gflops
