"""CSV frames: exact columns, whole counts, empty cells, paired differences."""

import csv
import io
from dataclasses import replace
from itertools import pairwise

import pandas as pd
import pytest

from spar_bench.accuracy import paired_difference
from spar_bench.report.arms import read_arms
from spar_bench.report.frames import (
    DIFFERENCE_COLUMNS,
    costs_frame,
    differences_frame,
    results_frame,
)
from spar_bench.results import COLUMNS, COST_COLUMNS, Cost
from tests.report.synthetic import (
    STRIDES,
    baseline,
    results_of,
    row,
    stride_results,
    students,
    teacher,
)


def read(frame: pd.DataFrame) -> list[dict[str, str]]:
    """Write a frame as CSV and read its cells as text."""
    return list(csv.DictReader(io.StringIO(frame.to_csv(index=False))))


def test_results_have_the_columns_of_the_design_and_a_line_a_row() -> None:
    results = stride_results()

    lines = read(results_frame(results))

    assert list(lines[0]) == COLUMNS
    assert len(lines) == len(results.rows)


def test_a_swept_key_that_no_column_shows_has_its_own_column() -> None:
    swept = {"teacher.stride_px": 12, "student.epochs": 4, "images.crop": [0, 1]}
    lines = read(results_frame(results_of([row("student", 0.4, swept=swept), baseline(30)])))

    assert list(lines[0]) == [*COLUMNS, "student.epochs", "images.crop"]
    assert [line["student.epochs"] for line in lines] == ["4", ""]
    assert lines[0]["images.crop"] == "[0, 1]"


def test_counts_are_whole_numbers_and_what_was_not_measured_is_empty() -> None:
    failed = row("student", None, status="failed", cost=Cost())
    single, student = read(results_frame(results_of([baseline(38.3), failed])))

    assert (single["seed"], single["window_px"], single["image_h"]) == ("", "", "256")
    assert (student["seed"], student["stride_px"], student["n_windows"]) == ("0", "12", "")
    assert (student["miou"], student["gflops"], student["status"]) == ("", "", "failed")
    assert float(single["miou"]) == pytest.approx(0.383)


def test_costs_have_their_columns_even_without_a_line() -> None:
    results = stride_results()

    assert list(costs_frame(results).columns) == COST_COLUMNS
    line = dict.fromkeys(COST_COLUMNS) | {"backbone": "patchwork", "image_h": 64, "gflops": 0.5}
    (read_back,) = read(costs_frame(replace(results, costs=[line])))
    assert (read_back["image_h"], read_back["gflops"], read_back["stride_px"]) == ("64", "0.5", "")


def test_a_stride_sweep_has_the_differences_a_reader_asks_about() -> None:
    results = stride_results()

    frame = differences_frame(results, read_arms(results))

    names = [f"teacher s = {stride}" for stride in STRIDES]
    expected = [(names[0], "single pass")]
    expected += [(finer, names[0]) for finer in names[1:]]
    expected += pairwise(names[1:])
    for student in ("SPAR last 2 blocks", "SPAR all"):
        expected += [(student, "single pass"), (student, "teacher s = 12")]
    assert list(frame.columns) == DIFFERENCE_COLUMNS
    assert list(zip(frame["a"], frame["b"], strict=True)) == expected


def test_a_difference_is_that_of_the_counts_with_its_sign() -> None:
    results = results_of([baseline(30), teacher(64, 50)])

    line = differences_frame(results, read_arms(results)).iloc[0]

    expected = paired_difference(results.counts["teacher64"], results.counts["pretrained"])
    assert (line["a"], line["b"]) == ("teacher s = 64", "single pass")
    assert line["difference"] == expected.value > 0
    assert (line["low"], line["high"]) == (expected.low, expected.high)
    assert line["n_images"] == 12


@pytest.mark.parametrize(
    ("others", "pairs"),
    [
        ([], [("teacher s = 64 (random weights)", "single pass (random weights)")]),
        (
            ["other"],
            [
                ("teacher clip (random weights), s = 64", "single pass, clip (random weights)"),
                ("teacher other, s = 64", "single pass, other"),
            ],
        ),
    ],
)
def test_differences_of_random_weights_are_marked_once(
    others: list[str], pairs: list[tuple[str, str]]
) -> None:
    rows = [
        replace(one, backbone=name, group=name, stages={"evaluate": f"{name} {one.method}"})
        for name in ["clip (random weights)", *others]
        for one in (baseline(30), teacher(64, 50))
    ]
    results = results_of(rows)

    frame = differences_frame(results, read_arms(results))

    assert sorted(zip(frame["a"], frame["b"], strict=True)) == pairs


def test_a_student_is_compared_with_its_own_teacher_alone() -> None:
    rows = [teacher(64, 44), teacher(12, 46), *students("all", 45, n_seeds=2, stride_px=64)]
    results = results_of(rows)

    frame = differences_frame(results, read_arms(results))

    compared = frame[frame["a"] == "SPAR all"]
    assert list(compared["b"]) == ["teacher s = 64"]


@pytest.mark.parametrize("counts", [{}, {"pretrained"}])
def test_without_counts_there_is_no_difference(counts: set[str]) -> None:
    results = results_of([baseline(30), teacher(64, 50)])
    kept = {key: value for key, value in results.counts.items() if key in counts}

    frame = differences_frame(replace(results, counts=kept), read_arms(results))

    assert frame.empty
    assert list(frame.columns) == DIFFERENCE_COLUMNS
