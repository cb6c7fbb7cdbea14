"""What a student took to be made, against closed forms of its windows and passes."""

import math
from pathlib import Path
from typing import Any

import pytest

from spar_bench.components.flops import encoder_flops, training_flops
from spar_bench.errors import Interrupted
from spar_bench.results import Training
from spar_bench.run.context import Context
from spar_bench.run.student import make_students
from spar_bench.session.collect import Collector
from spar_bench.stages import images, student, targets
from spar_bench.store import Store
from spar_bench.windows import n_windows
from tests.run.conftest import clip, photographs, store
from tests.run.tiny import CPU, finished, of_type, plan_of, scheduler, settings, write_photographs

__all__ = ["clip", "photographs", "store"]

# All distillation images are resized to a short side of 32 px, as high as the window.
DRAWN: dict[str, Any] = {"images__short_side_px": [32, 32], "evaluate__methods": ["student"]}


def collected(one: Any, store: Store) -> tuple[Collector, Training]:
    """Make everything that settings need; return what the student of the only row took."""
    plan = plan_of(one)
    scheduler(plan, store)[0].make([row.evaluate for row in plan.trials[0].rows])
    collector = Collector("x", plan, store)
    [row] = collector.rows(plan.trials[0])
    return collector, row.training


def expected_gflops(collector: Collector, store: Store) -> tuple[float, float]:
    """Return the GFLOPs of targets and of an epoch, image by image."""
    [stage] = of_type(collector.plan, student.Stage)
    [listed] = of_type(collector.plan, images.Stage)
    sizes, teacher = stage.places.sizes, stage.places.teaching.teacher
    teach = passes = 0
    for image_hw, count in listed.sizes.items():
        in_windows = n_windows(image_hw, *teacher.window_and_stride_px)
        teach += count * in_windows * encoder_flops(sizes, (32, 32))
        passes += count * training_flops(sizes, image_hw, stage.settings.recipe.trainable)
    return teach / 1e9, passes / 1e9


def same_size(folder: Path) -> Path:
    """Write labelled noise whose images all have one size, so that the plan's sizes are exact."""
    write_photographs(folder)
    first = folder / "train_images" / "0.png"
    for other in (folder / "train_images").glob("[12].png"):
        other.write_bytes(first.read_bytes())
    return folder


def test_targets_that_are_kept_count_once_and_passes_once_an_epoch(
    clip: Path, store: Store, tmp_path: Path
) -> None:
    one = settings(clip, same_size(tmp_path / "noise"), **DRAWN)

    collector, took = collected(one, store)

    teach, passes = expected_gflops(collector, store)
    assert (took.train_images, took.epochs) == (3, 2)
    assert took.teach_gflops == pytest.approx(teach, rel=1e-9)
    assert took.train_gflops == pytest.approx(2 * passes, rel=1e-9)
    assert took.total_gflops == pytest.approx(teach + 2 * passes, rel=1e-9)
    assert took.trained_params_m is not None
    assert took.train_seconds is not None
    assert took.train_seconds > 0


def test_targets_that_are_not_kept_count_once_an_epoch(
    clip: Path, store: Store, tmp_path: Path
) -> None:
    one = settings(clip, same_size(tmp_path / "noise"), **DRAWN, teacher__keep=False)

    collector, took = collected(one, store)

    teach, passes = expected_gflops(collector, store)
    assert of_type(collector.plan, targets.Stage) == []
    assert took.teach_gflops == pytest.approx(2 * teach, rel=1e-9)
    assert took.train_gflops == pytest.approx(2 * passes, rel=1e-9)


@pytest.mark.parametrize("n_images", [1, 2, 3])
def test_muons_products_count_once_a_step(
    clip: Path, store: Store, tmp_path: Path, n_images: int
) -> None:
    one = settings(
        clip,
        same_size(tmp_path / "noise"),
        **DRAWN,
        student__trainable="all",  # so that no frozen block is run once for both epochs
        student__optimiser="muon",
        student__accumulate=n_images,
    )

    collector, took = collected(one, store)

    [stage] = of_type(collector.plan, student.Stage)
    _, passes = expected_gflops(collector, store)
    n_steps = 2 * math.ceil(3 / n_images)
    expected = 2 * passes + n_steps * stage.update_flops / 1e9
    assert took.train_gflops == pytest.approx(expected, rel=1e-9)
    assert stage.estimate(collector.plan.stages).gflops == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("keep", [True, False])
def test_a_student_that_was_resumed_took_what_all_attempts_took(
    clip: Path, photographs: Path, store: Store, tmp_path: Path, keep: bool
) -> None:
    one = settings(clip, photographs, **DRAWN, teacher__keep=keep)
    _, whole = collected(one, Store(tmp_path / "whole"))
    [stage] = of_type(plan_of(one), student.Stage)
    looks = iter([False, False, False])

    def check(self: Context) -> None:
        if self.store is store and next(looks, True):
            raise Interrupted

    scheduler(plan_of(one), store)[0].make(stage.inputs.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "check", check)
        with pytest.raises(Interrupted):
            make_students([stage], Context(store, CPU))

    _, resumed = collected(one, store)

    assert (resumed.teach_gflops, resumed.train_gflops) == pytest.approx(
        (whole.teach_gflops, whole.train_gflops), rel=1e-9
    )
    assert resumed.train_seconds is not None
    curve = student.read_curve(finished(store, stage))
    assert curve[2][2] < finished(store, stage).manifest["made"]["started_ms"]


def test_without_a_student_of_our_own_nothing_is_known_of_training(
    clip: Path, photographs: Path, store: Store
) -> None:
    one = settings(clip, photographs, evaluate__methods=["pretrained"])

    _, took = collected(one, store)

    assert took == Training()


def test_a_student_that_is_not_trained_yet_has_empty_cells(
    clip: Path, photographs: Path, store: Store
) -> None:
    plan = plan_of(settings(clip, photographs, **DRAWN))

    [row] = Collector("x", plan, store).rows(plan.trials[0])

    assert row.training == Training()
