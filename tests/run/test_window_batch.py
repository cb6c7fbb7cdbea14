"""How many windows are encoded at once: halved for one reading alone, and recorded with it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from spar_bench.backbones.base import Backbone
from spar_bench.run.context import Context
from spar_bench.run.inference import WINDOW_BATCH
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stage import Finished
from spar_bench.stages import evaluate, student, targets
from spar_bench.stages.evaluate import read_counts
from spar_bench.store import Store
from tests.run.tiny import CPU, finished, of_type, plan_of, scheduler, settings

USUAL = WINDOW_BATCH["cpu"]


class SmallMemory(Context):
    """A context whose backbones run out of memory if windows are not encoded one by one."""

    def backbone(self, spec: BackboneSpec, student: Finished | None = None) -> Backbone:
        backbone = super().backbone(spec, student)
        encode = type(backbone).features

        def features(images: Tensor) -> Tensor:
            if len(images) > 1:
                raise torch.OutOfMemoryError("Tried to allocate 7 GiB.")
            return encode(backbone, images)

        backbone.features = features  # type: ignore[method-assign]
        return backbone


def made(stage: Finished) -> int | None:
    """Return the window batch that a stage's manifest records."""
    batch: int | None = stage.manifest["made"]["window_batch"]
    return batch


@pytest.mark.parametrize("average", ["logits", "features"])
def test_halved_batch_of_an_evaluation_is_recorded_and_labels_are_the_same(
    clip: Path, photographs: Path, tmp_path: Path, average: str
) -> None:
    plan = plan_of(
        settings(
            clip,
            photographs,
            teacher__stride_px=8,
            evaluate__methods=["pretrained", "teacher"],
            evaluate__average=average,
        )
    )
    small, usual = Store(tmp_path / "small"), Store(tmp_path / "usual")
    scheduler(plan, small, context=SmallMemory(small, CPU))[0].make(plan.stages)
    scheduler(plan, usual)[0].make(plan.stages)

    one, two = of_type(plan, evaluate.Stage)
    single, windows = (one, two) if one.settings.inference.window_px is None else (two, one)
    assert [made(finished(store, single)) for store in (small, usual)] == [None, None]
    assert [made(finished(store, windows)) for store in (small, usual)] == [1, USUAL]
    halved, whole = (read_counts(finished(store, windows)) for store in (small, usual))
    assert halved.true.sum() == whole.true.sum()
    # Rounding may move a pixel between equal classes.
    assert abs(halved.correct - whole.correct).sum() < 0.002 * whole.true.sum()


@pytest.mark.parametrize("keep", [True, False])
def test_batch_is_recorded_with_targets_and_with_the_student_that_computes_them(
    clip: Path, photographs: Path, store: Store, keep: bool
) -> None:
    plan = plan_of(settings(clip, photographs, teacher__keep=keep, evaluate__methods=["student"]))
    scheduler(plan, store)[0].make(plan.stages)

    [trained], kept = of_type(plan, student.Stage), of_type(plan, targets.Stage)
    [evaluated] = of_type(plan, evaluate.Stage)
    assert made(finished(store, trained)) == (None if keep else USUAL)
    assert [made(finished(store, one)) for one in kept] == ([USUAL] if keep else [])
    assert made(finished(store, evaluated)) is None  # a student reads in one pass
