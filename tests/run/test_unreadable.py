"""An image or mask that cannot be read: an error that names it, or left out and reported."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import spar_bench as sb
from spar_bench.accuracy import Counts, difference_of, miou, names_digest, resample
from spar_bench.datasets._images import read_mask
from spar_bench.datasets.base import Sample
from spar_bench.datasets.folder import Dataset
from spar_bench.errors import DataError, Interrupted
from spar_bench.plan.trials import Plan
from spar_bench.run import evaluate
from spar_bench.run.context import Context
from spar_bench.session.collect import Collector
from spar_bench.stage import Finished
from spar_bench.stages.evaluate import Stage, Summary, read_counts, read_preview
from spar_bench.store import Store
from tests.run.tiny import CPU, Notes, plan_of, scheduler, settings, write_photographs


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four photographs, the second of which is truncated."""
    folder = write_photographs(tmp_path / "noise", n_val=4)
    damage(folder / "val_images" / "1.png")
    return folder


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def planned(clip: Path, data: Path, unreadable: str, **changes: Any) -> Plan:
    changes = {"evaluate__methods": ["pretrained"]} | changes
    return plan_of(settings(clip, data, evaluate__unreadable=unreadable, **changes))


def evaluated(plan: Plan, store: Store) -> tuple[Finished, Notes]:
    """Make the evaluation of a plan's first arm."""
    stage = plan.stages[plan.trials[0].rows[0].evaluate]
    making, notes = scheduler(plan, store)
    making.make([stage.fingerprint])
    finished = store.find(stage)
    assert finished is not None, notes.all
    return finished, notes


def test_it_is_an_error_that_names_the_file(clip: Path, data: Path, store: Store) -> None:
    plan = planned(clip, data, "error")
    making, notes = scheduler(plan, store)

    making.make([plan.trials[0].rows[0].evaluate])

    [told] = [text for note, _, text in notes.all if note == "failed"]
    assert told.startswith(f"{data}/val_images/1.png: image must be readable, but is not (")


def test_left_out_it_is_counted_and_named_and_the_others_count_as_without_it(
    clip: Path, data: Path, store: Store, tmp_path: Path
) -> None:
    without = tmp_path / "without"
    shutil.copytree(data, without)
    for kind in ("images", "masks"):
        (without / f"val_{kind}" / "1.png").unlink()
    plan = planned(clip, data, "skip")

    finished, _ = evaluated(plan, store)
    whole, _ = evaluated(planned(clip, without, "error"), store)

    counts, expected = read_counts(finished), read_counts(whole)
    assert finished.summary["miou"] == whole.summary["miou"]
    assert np.array_equal(counts.true, expected.true)
    assert np.array_equal(counts.correct, expected.correct)
    assert np.array_equal(counts.predicted, expected.predicted)
    assert counts.images == expected.images != ""
    assert read_preview(finished).names == [f"val_images/{n}.png" for n in (0, 2, 3)]
    assert (finished.summary["n_images"], finished.summary["n_skipped"]) == (3, 1)
    assert (whole.summary["n_images"], whole.summary["n_skipped"]) == (3, 0)
    [skipped] = json.loads(finished.path("skipped.json").read_text())
    assert skipped["index"] == 1
    assert skipped["reason"].startswith(f"{data}/val_images/1.png: image must be readable")
    [row] = Collector("it", plan, store).rows(plan.trials[0])
    assert (row.n_images, row.n_skipped) == (3, 1)
    assert row.reason == f"could not be read and left out: 1 image: {skipped['reason']}"


def test_first_image_may_be_the_one_that_is_left_out(clip: Path, data: Path, store: Store) -> None:
    damage(data / "val_images" / "0.png")
    plan = planned(clip, data, "skip")

    finished, _ = evaluated(plan, store)

    assert plan.trials[0].rows[0].data.image_hw == (52, 70)  # of the third
    assert (finished.summary["n_images"], finished.summary["n_skipped"]) == (2, 2)


def test_mask_without_sense_is_left_out_too_and_several_are_summed_up(
    clip: Path, data: Path, store: Store
) -> None:
    mask = data / "val_masks" / "3.png"
    Image.fromarray(np.full_like(read_mask(mask), 7)).save(mask)
    plan = planned(clip, data, "skip")

    finished, _ = evaluated(plan, store)

    reasons = [one["reason"] for one in json.loads(finished.path("skipped.json").read_text())]
    assert len(reasons) == finished.summary["n_skipped"] == 2
    assert "val_masks/3.png: a mask must hold only 0 to 2 and 255, but has 7" in reasons[1]
    [row] = Collector("it", plan, store).rows(plan.trials[0])
    told = f"could not be read and left out: 2 images, the first: {reasons[0]}"
    assert row.reason == told


def test_all_arms_leave_out_the_same_and_are_paired_by_name(
    clip: Path, data: Path, store: Store
) -> None:
    plan = planned(clip, data, "skip", evaluate__methods=["pretrained", "teacher"])
    making, _ = scheduler(plan, store)
    making.make([row.evaluate for row in plan.trials[0].rows])

    found = [store.find(plan.stages[row.evaluate]) for row in plan.trials[0].rows]
    single, windows = (read_counts(one) for one in found if one is not None)

    assert single.images == windows.images
    difference = difference_of([resample(windows)], [resample(single)])
    assert difference.value == pytest.approx(miou(windows) - miou(single), abs=1e-12)


def test_same_truth_of_other_images_is_not_paired() -> None:
    pixels = np.array([[3, 2], [1, 4]])
    a, b = (
        Counts(pixels, pixels, pixels, names_digest(names)) for names in (["x", "y"], ["y", "x"])
    )

    with pytest.raises(ValueError, match="the same images on both sides, but they differ"):
        difference_of([resample(a)], [resample(b)])


def test_where_nothing_can_be_read_the_first_reason_is_told(
    clip: Path, data: Path, store: Store
) -> None:
    for index in (0, 2, 3):
        damage(data / "val_masks" / f"{index}.png")
    plan = planned(clip, data, "skip")
    making, notes = scheduler(plan, store)

    making.make([plan.trials[0].rows[0].evaluate])

    [told] = [text for note, _, text in notes.all if note == "failed"]
    first = f"{data}/val_masks/0.png: mask must be readable"
    assert told.startswith(
        f"data set noise: must have a readable image, but none of 4 is; the first reason: {first}"
    )


def test_what_was_left_out_is_remembered_when_work_goes_on(
    clip: Path, data: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(Context):
        """Stops before the fourth image."""

        asked = 0

        def check(self) -> None:
            self.asked += 1
            if self.asked == 4:
                raise Interrupted

    plan = planned(clip, data, "skip")
    [row] = plan.trials[0].rows
    stage = plan.stages[row.evaluate]
    assert isinstance(stage, Stage)
    scheduler(plan, store)[0].make(stage.inputs.values())
    first = Stopping(store, CPU)
    read: list[int] = []
    with pytest.raises(Interrupted):
        evaluate.make_evaluations([stage], first)
    plain = Dataset.sample

    def watched(self: Dataset, index: int) -> Sample:
        read.append(index)
        return plain(self, index)

    monkeypatch.setattr(Dataset, "sample", watched)
    [summary] = evaluate.make_evaluations([stage], Context(store, CPU))

    assert read == [3]
    assert isinstance(summary, Summary)
    assert (summary.n_images, summary.n_skipped) == (3, 1)


def test_library_raises_what_cannot_be_read(clip: Path, data: Path) -> None:
    spec = settings(clip, data).evaluate.datasets[0]

    with pytest.raises(DataError, match=r"val_images/1\.png: image must be readable"):
        sb.evaluate(sb.load_backbone(clip), spec, short_side_px=40)
