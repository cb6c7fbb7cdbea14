"""CSV tables: exact columns, whole counts, empty cells."""

import csv
import dataclasses
import io
from dataclasses import replace

import pytest

from spar_bench.report.data import (
    DIFFERENCE_COLUMNS,
    costs_data,
    differences_data,
    results_data,
)
from spar_bench.report.page import Data, Page
from spar_bench.report.renderers import data
from spar_bench.results import COLUMNS, COST_COLUMNS, Cost, CostRow, Training
from tests.report.synthetic import (
    baseline,
    compared_in,
    results_of,
    row,
    stride_results,
    students,
    teacher,
    training,
)


def read(table: Data) -> list[dict[str, str]]:
    """Write a table as CSV and read its cells as text."""
    return list(csv.DictReader(io.StringIO(data.render(Page("x", [table]))[table.name])))


def test_results_have_the_columns_of_the_design_and_a_line_a_row() -> None:
    results = stride_results()

    lines = read(results_data(results))

    assert list(lines[0]) == COLUMNS
    assert len(lines) == len(results.rows)


def test_a_swept_key_that_no_column_shows_has_its_own_column() -> None:
    swept = {"teacher.stride_px": 12, "student.epochs": 4, "images.crop": [0, 1]}
    lines = read(results_data(results_of([row("student", 0.4, swept=swept), baseline(30)])))

    assert list(lines[0]) == [*COLUMNS, "student.epochs", "images.crop"]
    assert [line["student.epochs"] for line in lines] == ["4", ""]
    assert lines[0]["images.crop"] == "[0, 1]"


def test_what_a_student_took_is_in_its_rows_alone() -> None:
    taught = row("student", 0.4, training=training(12.5, train_seconds=None))
    imported = row("student", 0.4, checkpoint="spar.ckpt")

    student, single, other = read(results_data(results_of([taught, baseline(38), imported])))

    names = [field.name for field in dataclasses.fields(Training)]
    assert [student[name] for name in names] == ["200", "4", "0.4", "25.0", "12.5", ""]
    assert {line[name] for line in (single, other) for name in names} == {""}


def test_counts_are_whole_numbers_and_what_was_not_measured_is_empty() -> None:
    failed = row("student", None, status="failed", cost=Cost())
    single, student = read(results_data(results_of([baseline(38.3), failed])))

    assert (single["seed"], single["window_px"], single["image_h"]) == ("", "", "256")
    assert (student["seed"], student["stride_px"], student["n_windows"]) == ("0", "12", "")
    assert (student["miou"], student["gflops"], student["status"]) == ("", "", "failed")
    assert float(single["miou"]) == pytest.approx(0.383)


def test_values_are_written_as_they_are_shown() -> None:
    rows = [
        *students("all", 45, n_seeds=1, random_weights=True, train_short_side_px=(128, 320)),
        row("student", 0.4, trainable=None, checkpoint="spar.ckpt", train_short_side_px=None),
    ]

    trained, imported = read(results_data(results_of(rows)))

    assert trained["backbone"] == "patchwork (random weights)"
    assert trained["train_short_side_px"] == "128-320"
    assert (imported["trainable"], imported["train_short_side_px"]) == ("imported: spar.ckpt", "")


def test_costs_have_their_columns_even_without_a_line() -> None:
    results = stride_results()
    cost_row = CostRow(
        backbone="patchwork", random_weights=False, method="teacher", inference="sliding_window",
        average="logits", refiner="none", window_px=64, stride_px=None,
        dataset="streets", dtype="float32", cost=Cost(image_h=64, image_w=96, gflops=0.5),
    )  # fmt: skip

    assert read(costs_data(results)) == []
    assert costs_data(results).columns == COST_COLUMNS
    (line,) = read(costs_data(replace(results, costs=[cost_row])))
    assert (line["image_h"], line["gflops"], line["stride_px"]) == ("64", "0.5", "")
    assert line["dataset"] == "streets"
    assert (line["latency_p50_ms"], line["cost_status"]) == ("", "not_measured")


def test_differences_have_both_names_the_limits_and_the_number_of_images() -> None:
    results = results_of([baseline(30), teacher(64, 50)])
    (compared,) = compared_in(results)

    (line,) = read(differences_data([compared]))

    assert list(line) == DIFFERENCE_COLUMNS
    assert (line["dataset"], line["eval_short_side_px"]) == ("patchwork", "256")
    assert (line["a"], line["b"], line["n_images"]) == ("teacher s = 64", "single pass", "12")
    found = [float(line[name]) for name in ("difference", "low_over_images", "high_over_images")]
    over_images = compared.over_images
    assert found == [over_images.value, over_images.low, over_images.high]
    assert [line[name] for name in ("low_over_seeds", "n_seeds", "swept")] == ["", "", ""]


def test_differences_along_the_sweep_have_their_key_and_both_intervals() -> None:
    results = results_of([*students("all", 45), *students("last_2_blocks", 42)])
    (compared,) = compared_in(results)

    (line,) = read(differences_data([compared]))

    assert (line["swept"], line["a"], line["b"]) == (
        "trainable",
        "SPAR last 2 blocks",
        "SPAR all",
    )
    assert compared.over_seeds is not None
    limits = [float(line[f"{end}_over_seeds"]) for end in ("low", "high")]
    assert limits == [compared.over_seeds.low, compared.over_seeds.high]
    assert line["n_seeds"] == "3"
