"""Fresh images: every epoch has its own, the teacher reads each as it comes, nothing is kept."""

from pathlib import Path

import numpy as np
import pytest

from spar_bench.plan.trials import Plan
from spar_bench.run.context import Context
from spar_bench.run.student import make_students
from spar_bench.run.teach import open_images
from spar_bench.run.training import Training
from spar_bench.stages import images, student, targets
from spar_bench.store import Store
from tests.run.tiny import CPU, losses, of_type, plan_of, scheduler, settings


def test_every_epoch_reads_images_of_its_own(clip: Path, photographs: Path, store: Store) -> None:
    plan = plan_of(settings(clip, photographs, images__fresh=True, student__epochs=4))
    [stage] = of_type(plan, student.Stage)
    scheduler(plan, store)[0].make([stage.inputs["images"]])
    context = Context(store, CPU)
    pictures = open_images(stage, context)
    backbone = context.backbone(stage.places.backbone)
    n_lists = stage.settings.n_lists

    run = Training(backbone, stage.settings.recipe, 0, len(pictures) // n_lists, n_lists)

    found = list(run.upcoming(0, range))
    assert sorted(found) == list(range(12))
    assert [sorted(found[first : first + 3]) for first in range(0, 12, 3)] == [
        [0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]
    ]  # fmt: skip


def test_a_source_is_read_whole_before_an_image_comes_again(
    clip: Path, photographs: Path, store: Store
) -> None:
    one = settings(
        clip, photographs, images__fresh=True, images__count=2, images__crop=1.0, student__epochs=6
    )
    plan = plan_of(one)
    [listed] = of_type(plan, images.Stage)

    scheduler(plan, store)[0].make([listed.fingerprint])

    finished = store.find(listed)
    assert finished is not None
    drawn = images.read_list(finished)
    rounds = [sorted(one.index for one in drawn[first : first + 3]) for first in range(0, 12, 3)]
    assert rounds == [[0, 1, 2]] * 4
    assert len({(one.index, one.short_side_px, one.crop) for one in drawn}) == 12


def test_targets_are_not_kept_and_not_a_stage(clip: Path, photographs: Path, store: Store) -> None:
    plan = plan_of(settings(clip, photographs, images__fresh=True))

    [stage] = of_type(plan, student.Stage)

    assert of_type(plan, targets.Stage) == []
    scheduler(plan, store)[0].make([stage.fingerprint])
    finished = store.find(stage)
    assert finished is not None
    summary = finished.summary_as(student.Summary)
    # Each of 6 images was read by the teacher once.
    assert summary.teach_gflops == pytest.approx(
        stage.estimate(plan.stages).gflops - _own_gflops(stage, plan), rel=0.25
    )


def _own_gflops(stage: student.Stage, plan: Plan) -> float:
    counted = targets.drawn(stage, plan.stages)
    frozen = student.frozen_of([stage], plan.stages).flops
    return (frozen + sum(n * stage.own_flops(hw) for hw, n in counted.items())) / 1e9


def test_as_many_images_read_once_make_the_same_student(
    clip: Path, photographs: Path, store: Store
) -> None:
    fresh = settings(clip, photographs, images__fresh=True, images__count=6, student__epochs=1)
    listed = settings(clip, photographs, images__count=6, student__epochs=1)

    curves = list[list[tuple[int, float]]]()
    for one in (fresh, listed):
        plan = plan_of(one)
        [stage] = of_type(plan, student.Stage)
        scheduler(plan, store)[0].make(stage.inputs.values() & plan.stages.keys())
        store.discard_unfinished(stage.fingerprint)
        make_students([stage], Context(store, CPU))
        curves.append(losses(store.output(stage)))

    assert curves[0] == curves[1]


def test_of_a_source_a_part_may_be_used(clip: Path, photographs: Path, store: Store) -> None:
    source = {"name": "folder", "path": str(photographs), "count": 2}
    plan = plan_of(settings(clip, photographs, images__source=source, images__count=8))
    [listed] = of_type(plan, images.Stage)

    scheduler(plan, store)[0].make([listed.fingerprint])

    finished = store.find(listed)
    assert finished is not None
    assert listed.places.n_images == 2
    counts = np.bincount([one.index for one in images.read_list(finished)])
    assert counts.tolist() == [4, 4]


def test_any_number_of_scenes_may_be_drawn(clip: Path, photographs: Path) -> None:
    source = {"name": "patchwork", "count": 123_456}
    plan = plan_of(settings(clip, photographs, images__source=source))

    [listed] = of_type(plan, images.Stage)

    assert listed.places.n_images == 123_456
