"""Paired differences: which are made, and their sign and limits."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from spar_bench.accuracy import difference_of, miou, resample
from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.difference_tables import MOST_LINES, difference_blocks
from spar_bench.report.differences import Comparison, comparisons
from spar_bench.report.measuring import Resampler
from spar_bench.report.page import Table, Text
from spar_bench.report.renderers.markdown import to_markdown
from spar_bench.results import Results, Row
from tests.report.synthetic import (
    STRIDES,
    InMemory,
    baseline,
    compared_in,
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

    found = compared_in(results)

    names = [f"teacher s = {stride}" for stride in STRIDES]
    expected = [(names[0], "single pass")]
    expected += [(finer, names[0]) for finer in names[1:]]
    expected += pairwise(names[1:])
    for student in ("SPAR last 2 blocks", "SPAR all"):
        expected += [(student, "single pass"), (student, "teacher s = 12")]
    expected += [("SPAR all", "SPAR last 2 blocks")]
    assert names_of(found) == expected
    assert [each.swept for each in found[-2:]] == ["", "trainable"]


def test_a_difference_is_that_of_the_counts_with_its_sign() -> None:
    results = results_of([baseline(30), teacher(64, 50)])

    (found,) = compared_in(results)

    counts = evaluations_of(results).all_counts
    expected = difference_of([resample(counts["teacher64"])], [resample(counts["pretrained"])])
    assert names_of([found]) == [("teacher s = 64", "single pass")]
    assert found.over_images == expected
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

    found = compared_in(results)

    assert sorted(names_of([each for each in found if not each.swept])) == pairs


def test_a_student_is_compared_with_its_own_teacher_alone() -> None:
    rows = [teacher(64, 44), teacher(12, 46), *students("all", 45, n_seeds=2, stride_px=64)]
    results = results_of(rows)

    found = compared_in(results)

    assert [b for a, b in names_of(found) if a == "SPAR all"] == ["teacher s = 64"]


@pytest.mark.parametrize("counts", [{}, {"pretrained"}])
def test_without_counts_there_is_no_difference(counts: set[str]) -> None:
    results = results_of([baseline(30), teacher(64, 50)])
    every = evaluations_of(results).all_counts
    kept = InMemory({key: value for key, value in every.items() if key in counts})

    assert comparisons(read_aggregates(results), Resampler(kept)) == []


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

    assert comparisons(read_aggregates(results), Resampler(InMemory(counts))) == []


def recipe(
    loss: str, trainable: str, percents: Mapping[int, float], **changes: object
) -> list[Row]:
    """Return the rows of a student of two swept keys, its mIoU by seed."""
    rows = students(trainable, 0, n_seeds=max(percents) + 1, **changes)
    return [
        replace(
            one,
            miou=percents[seed] / 100,
            loss=loss,
            group=f"{loss} {trainable}",
            trial=f"{loss} {trainable} {seed}",
            swept={"student.loss": loss, "student.trainable": trainable},
            stages={"evaluate": f"{loss} {trainable} {seed} {one.eval_short_side_px}"},
        )
        for seed, one in enumerate(rows)
        if seed in percents
    ]


def along(results: Results) -> list[Comparison]:
    """Return the comparisons along what was swept."""
    found = compared_in(results)
    return [each for each in found if each.swept]


def test_each_swept_value_is_paired_with_the_first_of_its_key_all_else_equal() -> None:
    rows = [
        one
        for trainable in ("last_2_blocks", "all")
        for loss in ("mse", "cosine", "huber")
        if (trainable, loss) != ("all", "mse")
        for one in recipe(loss, trainable, {0: 40, 1: 41})
    ]

    found = [(each.swept, *each.names) for each in along(results_of(rows))]

    assert sorted(found) == sorted(
        [
            ("loss", "SPAR last 2 blocks, cosine", "SPAR last 2 blocks, mse"),
            ("loss", "SPAR last 2 blocks, huber", "SPAR last 2 blocks, mse"),
            ("loss", "SPAR all, huber", "SPAR all, cosine"),  # mse is missing here
            ("trainable", "SPAR all, cosine", "SPAR last 2 blocks, cosine"),
            ("trainable", "SPAR all, huber", "SPAR last 2 blocks, huber"),
        ]
    )


def test_the_interval_over_seeds_is_that_of_scipys_paired_test_on_common_seeds() -> None:
    mse, cosine = {0: 40.0, 1: 41.5, 2: 39.0, 3: 44.0}, {1: 43.0, 2: 40.1, 3: 44.4, 4: 48.0}
    rows = [*recipe("mse", "all", mse), *recipe("cosine", "all", cosine)]
    results = results_of(rows)
    counts = evaluations_of(results)
    found = {row.stages["evaluate"]: miou(counts.all_counts[row.stages["evaluate"]])
             for row in rows}  # fmt: skip

    (compared,) = along(results)

    a, b = ([found[f"{loss} all {seed} 256"] for seed in (1, 2, 3)] for loss in ("cosine", "mse"))
    limits = stats.ttest_rel(a, b).confidence_interval(0.95)
    over = compared.over_seeds
    assert over is not None
    assert (over.low, over.high) == pytest.approx((limits.low, limits.high))
    assert over.value == pytest.approx(float(np.mean(a) - np.mean(b)))
    assert over.value == pytest.approx(compared.over_images.value)
    assert compared.n_seeds == 3


def test_a_side_that_no_seed_can_affect_is_compared_with_every_seed() -> None:
    rows = [baseline(30), *students("all", 45, n_seeds=3)]
    results = results_of(rows)
    counts = evaluations_of(results).all_counts

    (compared,) = compared_in(results)

    each = [miou(counts[f"student_all_{seed}"]) - miou(counts["pretrained"]) for seed in range(3)]
    limits = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    assert compared.over_seeds is not None
    assert compared.over_seeds.low == pytest.approx(limits.low)
    assert compared.n_seeds == 3


def test_one_seed_has_no_interval_over_seeds_and_no_common_seed_no_difference() -> None:
    one, none = (
        along(results_of([*recipe("mse", "all", {0: 40, 1: 41}), *recipe("cosine", "all", seeds)]))
        for seeds in ({1: 42.0}, {2: 42.0})
    )

    assert [(each.over_seeds, each.n_seeds) for each in one] == [(None, 1)]
    assert none == []


def test_resolutions_are_paired_and_their_names_say_which() -> None:
    rows = [
        one for side in (128, 256) for one in recipe("mse", "all", {0: 40}, eval_short_side_px=side)
    ]

    (compared,) = along(results_of(rows))

    assert compared.swept == "eval_short_side_px"
    assert compared.names == ("SPAR all at 256 px", "SPAR all at 128 px")


def test_tables_keep_both_intervals_apart_and_mark_few_seeds() -> None:
    rows = [
        baseline(30),
        *recipe("mse", "all", dict.fromkeys(range(5), 45.0) | {1: 46.0}),
        *recipe("cosine", "all", {0: 47.0, 1: 47.5}),
    ]

    _, methods, swept, note = difference_blocks(compared_in(results_of(rows)))

    assert isinstance(methods, Table)
    assert methods.caption == "Paired differences: patchwork, short side 256 px, 12 images"
    assert methods.headers == [
        "a", "b", "a - b (points of mIoU)", "95 % interval over images",
        "95 % interval over seeds", "Seeds",
    ]  # fmt: skip
    assert [line[-1].text for line in methods.rows] == ["5", "2‡"]
    assert isinstance(swept, Table)
    assert "swept: Loss" in swept.caption
    assert isinstance(note, Text)
    assert "‡ Few seeds (under 5)" in note.text
    assert "Interval over images: paired bootstrap" in note.text


def test_columns_of_seeds_are_left_out_where_nothing_has_seeds() -> None:
    results = results_of([baseline(30), teacher(64, 50), teacher(32, 51)])

    _, table, note = difference_blocks(compared_in(results))

    assert isinstance(table, Table)
    assert table.headers == ["a", "b", "a - b (points of mIoU)", "95 % interval over images"]
    assert isinstance(note, Text)
    assert "over seeds" not in note.text
    assert "| teacher s = 64 | single pass |" in to_markdown(table)


def test_a_table_of_too_many_differences_is_cut_and_says_so() -> None:
    rows = [one for i in range(MOST_LINES + 3) for one in recipe(f"l{i}", "all", {0: 40.0})]
    results = results_of(rows)

    *_, table, _, told = difference_blocks(along(results))

    assert isinstance(table, Table)
    assert len(table.rows) == MOST_LINES
    assert told == Text(
        "Paired differences along the sweep: the first 60 of 62 lines; differences.csv has all.",
        "note",
    )
