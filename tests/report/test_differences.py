"""Paired differences: which are made, and their sign and limits."""

from dataclasses import replace
from itertools import pairwise

import pytest

from spar_bench.accuracy import paired_difference
from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.differences import Comparison, comparisons
from tests.report.synthetic import (
    STRIDES,
    InMemory,
    baseline,
    evaluations_of,
    results_of,
    stride_results,
    students,
    teacher,
)


def names_of(compared: list[Comparison]) -> list[tuple[str, str]]:
    return [(each.a.marked_name, each.b.marked_name) for each in compared]


def test_a_stride_sweep_has_the_differences_a_reader_asks_about() -> None:
    results = stride_results()

    found = comparisons(read_aggregates(results), evaluations_of(results))

    names = [f"teacher s = {stride}" for stride in STRIDES]
    expected = [(names[0], "single pass")]
    expected += [(finer, names[0]) for finer in names[1:]]
    expected += pairwise(names[1:])
    for student in ("SPAR last 2 blocks", "SPAR all"):
        expected += [(student, "single pass"), (student, "teacher s = 12")]
    assert names_of(found) == expected


def test_a_difference_is_that_of_the_counts_with_its_sign() -> None:
    results = results_of([baseline(30), teacher(64, 50)])

    (found,) = comparisons(read_aggregates(results), evaluations_of(results))

    counts = evaluations_of(results).all_counts
    expected = paired_difference(counts["teacher64"], counts["pretrained"])
    assert names_of([found]) == [("teacher s = 64", "single pass")]
    assert found.limits == (expected.value, expected.low, expected.high)
    assert expected.value > 0
    assert found.n_images == 12


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
        replace(
            one,
            backbone=name,
            random_weights=name == "clip",
            group=name,
            stages={"evaluate": f"{name} {one.method}"},
        )
        for name in ["clip", *others]
        for one in (baseline(30), teacher(64, 50))
    ]
    results = results_of(rows)

    found = comparisons(read_aggregates(results), evaluations_of(results))

    assert sorted(names_of(found)) == pairs


def test_a_student_is_compared_with_its_own_teacher_alone() -> None:
    rows = [teacher(64, 44), teacher(12, 46), *students("all", 45, n_seeds=2, stride_px=64)]
    results = results_of(rows)

    found = comparisons(read_aggregates(results), evaluations_of(results))

    assert [b for a, b in names_of(found) if a == "SPAR all"] == ["teacher s = 64"]


@pytest.mark.parametrize("counts", [{}, {"pretrained"}])
def test_without_counts_there_is_no_difference(counts: set[str]) -> None:
    results = results_of([baseline(30), teacher(64, 50)])
    every = evaluations_of(results).all_counts
    kept = InMemory({key: value for key, value in every.items() if key in counts})

    assert comparisons(read_aggregates(results), kept) == []


@pytest.mark.parametrize("differing", ["images", "true"])
def test_evaluations_of_different_images_are_not_compared(differing: str) -> None:
    results = results_of([baseline(30), teacher(64, 50)])
    counts = dict(evaluations_of(results).all_counts)
    other = (
        {"images": "another digest"}
        if differing == "images"
        else {"true": 2 + counts["teacher64"].true}
    )
    counts["teacher64"] = replace(counts["teacher64"], **other)

    assert comparisons(read_aggregates(results), InMemory(counts)) == []
