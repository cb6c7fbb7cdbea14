"""Results survive being written and read back."""

import dataclasses
import json
from pathlib import Path

import pytest

from spar_bench.errors import StoreError
from spar_bench.results import (
    COLUMNS,
    COST_COLUMNS,
    Cost,
    CostRow,
    OverSizes,
    Results,
    Row,
    SizesRow,
    Training,
)

ROW = Row(
    experiment="x",
    group="g",
    trial="g-0",
    seed=0,
    backbone="patchwork",
    random_weights=False,
    method="student",
    inference="single_pass",
    average=None,
    refiner="none",
    protocol="p",
    window_px=64,
    stride_px=12,
    train_short_side_px=(128, 320),
    loss="mse",
    trainable="all",
    dataset="patchwork",
    dataset_digest="d191e57",
    eval_short_side_px=256,
    n_images=2,
    miou=0.1 + 0.2,
    dtype="float32",
    status="finished",
    cost=Cost(image_h=256, image_w=320, gflops=1 / 3, cost_status="finished"),
    training=Training(train_images=200, epochs=4, train_gflops=2 / 3, train_seconds=1.5),
    swept={"student.learning_rate": 1e-3, "images.short_side_px": [128, 320]},
    stages={"evaluate": "abc"},
)


COST_ROW = CostRow(
    backbone="patchwork",
    random_weights=False,
    method="teacher",
    inference="sliding_window",
    average="features",
    refiner="none",
    window_px=64,
    stride_px=12,
    dataset="streets",
    dtype="float32",
    cost=Cost(image_h=64, image_w=96, gflops=1.5),
)


SIZES_ROW = SizesRow(
    backbone="patchwork",
    random_weights=False,
    method="pretrained",
    inference="single_pass",
    average=None,
    refiner="none",
    window_px=None,
    stride_px=None,
    dataset="streets",
    dtype="float32",
    cost=Cost(image_h=64, image_w=96, gflops=1.5),
    eval_short_side_px=64,
    over=OverSizes(n_images=7, n_sizes=3, gflops_mean=1.25, n_timed=3, fit_error=0.02),
)


def results() -> Results:
    """Return results with every field filled."""
    failed = dataclasses.replace(ROW, miou=None, status="failed", reason="ö: too hot", seed=None)
    return Results(
        experiment="x",
        question="Does “it” hold?",
        rows=[ROW, failed],
        costs=[COST_ROW],
        sizes=[SIZES_ROW],
        classes={ROW.classes: ["a", "b/c", "d$"]},
        provenance={"seeds": [0, 1]},
        protocols={"p": {"templates": "openclip_80", "logit_scale": 40.0}},
        objectives={"g-0": {"miou": 0.3, "train_gflops": 12.5}},
    )


def test_results_are_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    results().save(tmp_path / "deep" / "er")

    assert Results.load(tmp_path / "deep" / "er") == results()


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    results().save(tmp_path)
    dataclasses.replace(results(), question="Another?").save(tmp_path)

    assert Results.load(tmp_path).question == "Another?"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"format": 4', '"format": 1', "must be of format 4, but another version of spar-bench "),
        ('"format": 4,', "", "must hold the results of a sweep, but cannot be read; "),
        ('"miou"', '"iou"', "must hold the results of a sweep, but cannot be read; "),
        ("}", "", "must hold the results of a sweep, but cannot be read; "),
    ],
)
def test_results_that_are_not_of_this_format_are_refused_in_one_line(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    results().save(tmp_path)
    path = tmp_path / "results.json"
    path.write_text(path.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")

    with pytest.raises(StoreError) as refused:
        Results.load(tmp_path)

    assert str(refused.value).startswith(f"{path}: {message}")
    assert str(refused.value).endswith(f"the next sweep of {tmp_path.name} rewrites it")
    assert "\n" not in str(refused.value)


def test_a_number_that_is_not_finite_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    results().save(tmp_path)
    spoilt = dataclasses.replace(results(), rows=[dataclasses.replace(ROW, miou=float("nan"))])

    with pytest.raises(ValueError, match="not JSON compliant"):
        spoilt.save(tmp_path)

    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["rows"]


def test_every_column_is_a_field_of_a_row_its_cost_or_its_training() -> None:
    fields = {field.name for cls in (Row, Cost, Training) for field in dataclasses.fields(cls)}

    assert set(COLUMNS) <= fields
    assert set(COST_COLUMNS) <= fields
