"""Results survive being written and read back."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from spar_bench.accuracy import Counts
from spar_bench.results import COLUMNS, COST_COLUMNS, Cost, Preview, Results, Row

ROW = Row(
    experiment="x",
    group="g",
    trial="g-0",
    seed=0,
    backbone="patchwork",
    method="student",
    inference="single_pass",
    average=None,
    refiner="none",
    protocol="p",
    window_px=64,
    stride_px=12,
    train_short_side_px="128-320",
    loss="mse",
    trainable="all",
    dataset="patchwork",
    eval_short_side_px=256,
    n_images=2,
    miou=0.1 + 0.2,
    dtype="float32",
    status="finished",
    cost=Cost(image_h=256, image_w=320, gflops=1 / 3, cost_status="finished"),
    swept={"student.learning_rate": 1e-3, "images.short_side_px": [128, 320]},
    stages={"evaluate": "abc"},
)


def results() -> Results:
    """Return results with every field filled, images of two sizes among them."""
    counts = np.arange(6).reshape(2, 3)
    images = [np.full((4, 6, 3), 7, np.uint8), np.full((6, 4, 3), 9, np.uint8)]
    labels = [image[:, :, 0] for image in images]
    failed = dataclasses.replace(ROW, miou=None, status="failed", reason="ö: too hot", seed=None)
    return Results(
        experiment="x",
        question="Does “it” hold?",
        rows=[ROW, failed],
        costs=[{"backbone": "patchwork", "gflops": 1.5}],
        classes={"patchwork": ["a", "b/c", "d$"]},
        counts={"abc": Counts(counts, counts + 1, counts + 2)},
        previews={"abc": Preview(["one.png", "two.png"], images, labels, labels)},
        provenance={"seeds": [0, 1]},
        protocols={"p": {"templates": "openclip_80", "logit_scale": 40.0}},
        objectives={"g-0": {"miou": 0.3, "train_gflops": 12.5}},
    )


def test_results_are_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    saved = results()

    saved.save(tmp_path / "deep" / "er")
    loaded = Results.load(tmp_path / "deep" / "er")

    plain = ("experiment", "question", "rows", "costs", "classes", "provenance", "protocols")
    for name in (*plain, "objectives"):
        assert getattr(loaded, name) == getattr(saved, name)
    for name in ("correct", "predicted", "true"):
        expected = getattr(saved.counts["abc"], name)
        np.testing.assert_array_equal(getattr(loaded.counts["abc"], name), expected)
    assert loaded.previews["abc"].names == ["one.png", "two.png"]
    for name in ("images", "truths", "predictions"):
        pairs = zip(
            getattr(loaded.previews["abc"], name), getattr(saved.previews["abc"], name), strict=True
        )
        for got, expected in pairs:
            np.testing.assert_array_equal(got, expected)


def test_results_without_counts_and_previews_can_be_saved(tmp_path: Path) -> None:
    bare = dataclasses.replace(results(), rows=[], counts={}, previews={})

    bare.save(tmp_path)

    assert Results.load(tmp_path) == bare


def test_saving_again_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    results().save(tmp_path)
    dataclasses.replace(results(), question="Another?").save(tmp_path)

    assert Results.load(tmp_path).question == "Another?"
    expected = ["counts.safetensors", "previews.safetensors", "results.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected


def test_a_number_that_is_not_finite_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    results().save(tmp_path)
    spoilt = dataclasses.replace(results(), rows=[dataclasses.replace(ROW, miou=float("nan"))])

    with pytest.raises(ValueError, match="not JSON compliant"):
        spoilt.save(tmp_path)

    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["rows"]


def test_every_column_is_a_field_of_a_row_or_its_cost() -> None:
    fields = {field.name for cls in (Row, Cost) for field in dataclasses.fields(cls)}

    assert set(COLUMNS) <= fields
    assert set(COST_COLUMNS) <= fields
