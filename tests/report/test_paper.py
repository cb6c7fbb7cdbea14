"""Our numbers beside the paper's: which count, what is compared, and what is not."""

from dataclasses import replace

import pytest

from spar_bench.published import published
from spar_bench.report.comparing import PAPER_COLUMNS, paper_data, paper_section
from spar_bench.report.measuring import Resampler
from spar_bench.report.names import with_distinct_datasets
from spar_bench.report.page import Table
from spar_bench.report.paper import Beside, beside_the_paper
from spar_bench.results import Results, Row
from tests.report.rehearsal import DATASETS, rehearsed
from tests.report.synthetic import InMemory, counts_of


def index_of(table: str, **values: object) -> int:
    """Return the place in a table of the one number that has these values."""
    [index] = [
        index
        for index, one in enumerate(published(table))
        if all(getattr(one, name) == value for name, value in values.items())
    ]
    return index


SPAR = {"backbone": "siglip2-b16-512", "method": "student", "refiner": "none"}
MEAN = index_of("main_table", **SPAR, dataset="mean6")
VOC = index_of("main_table", **SPAR, dataset="voc21")
SECONDS = index_of("stride_figure", method="teacher", stride_px=24, quantity="seconds")


def with_rows(results: Results, change: dict[str, object], **of: object) -> Results:
    """Return results in which the rows with these values are changed."""

    def changed(row: Row) -> Row:
        is_one = all(getattr(row, name) == value for name, value in of.items())
        return replace(row, **change) if is_one else row  # type: ignore[arg-type]

    return replace(results, rows=[changed(row) for row in results.rows])


def beside(results: Results, number: int) -> list[Beside]:
    """Return what stands beside one number of the table that results name."""
    one = published(results.reproduces or "")[number]
    return [
        found
        for found in beside_the_paper(results, Resampler(InMemory()))
        if found.published == one
    ]


def group(results: Results) -> str:
    """Return the group that the student's number on VOC21 is about."""
    [match] = [one for one in results.matches if one.number == VOC]
    return match.group


def test_without_a_table_there_is_nothing_beside() -> None:
    assert (
        beside_the_paper(replace(rehearsed("main_table"), reproduces=None), Resampler(InMemory()))
        == []
    )


def test_every_number_of_the_table_is_there_in_its_order() -> None:
    found = beside_the_paper(rehearsed("main_table"), Resampler(InMemory()))

    assert [one.published for one in found] == published("main_table")


def test_a_mean_is_over_the_six_data_sets_each_weighing_alike() -> None:
    results = with_rows(rehearsed("main_table"), {"miou": 0.503}, **SPAR, dataset="voc21")

    [mean], [voc] = beside(results, MEAN), beside(results, VOC)

    assert voc.ours == pytest.approx(50.3)
    assert voc.difference == pytest.approx(3.0)
    assert mean.ours == pytest.approx((50.3 + 81.5 + 38.4 + 23.4 + 33.8 + 37.2) / 6)
    assert (voc.verdict.word, mean.verdict.word) == ("off", "off")


def test_a_mean_that_lacks_a_data_set_is_not_run() -> None:
    change: dict[str, object] = {"miou": None, "status": "failed", "reason": "no disk"}
    results = with_rows(rehearsed("main_table"), change, **SPAR, dataset="ade20k")

    [mean], [voc] = beside(results, MEAN), beside(results, VOC)

    assert (mean.ours, mean.verdict.word, mean.verdict.reason) == (None, "not_run", "no disk")
    assert voc.verdict.word == "reproduced"


def test_a_number_that_nothing_is_about_is_not_run() -> None:
    results = rehearsed("main_table")
    results = replace(results, matches=[one for one in results.matches if one.number != VOC])

    [found] = beside(results, VOC)

    assert (found.group, found.ours, found.difference) == ("", None, None)
    assert (found.verdict.word, found.verdict.reason) == ("not_run", "no row of it in the sweep")


def test_each_group_that_a_number_is_about_stands_beside_it() -> None:
    results = rehearsed("main_table")
    [match] = [one for one in results.matches if one.number == VOC]
    rows = [row for row in results.rows if row.group == match.group and row.dataset == "voc21"]
    others = [
        replace(row, group="mine", trial="mine", miou=0.40, stages={"evaluate": "mine"})
        for row in rows
    ]
    results = replace(
        results,
        rows=[*results.rows, *others],
        matches=[*results.matches, replace(match, group="mine")],
    )

    first, second = beside(results, VOC)

    assert (first.group, first.verdict.word) == (match.group, "reproduced")
    assert (second.group, second.ours, second.verdict.word) == ("mine", 40.0, "off")
    table = next(b for b in paper_section([first, second]) if isinstance(b, Table))
    named = table.headers.index("Row")
    assert [row[named].text for row in table.rows] == [f"SPAR ({match.group})", "SPAR (mine)"]


def test_groups_that_share_their_evaluations_stand_there_once() -> None:
    results = rehearsed("main_table")
    [match] = [one for one in results.matches if one.number == VOC]
    shared = [replace(row, group="again") for row in results.rows if row.group == match.group]
    results = replace(
        results,
        rows=[*results.rows, *shared],
        matches=[*results.matches, replace(match, group="again")],
    )

    assert len(beside(results, VOC)) == 1


def test_a_students_seeds_count_with_their_mean() -> None:
    results = rehearsed("main_table")
    [row] = [r for r in results.rows if (r.group, r.dataset) == (group(results), "voc21")]
    results = with_rows(results, {"miou": 0.470}, group=row.group, dataset="voc21")
    results = replace(results, rows=[*results.rows, replace(row, seed=1, miou=0.476)])

    [found] = beside(results, VOC)

    assert found.ours == pytest.approx(47.3)


@pytest.mark.parametrize(("ms", "word"), [(24_700, "reproduced"), (12_000, "not_comparable")])
def test_another_time_is_that_of_another_gpu(ms: float, word: str) -> None:
    results = rehearsed("stride_figure")
    [row] = [r for r in results.rows if r.stride_px == 24 and r.dataset == "cityscapes"
             and r.method == "teacher"]  # fmt: skip
    cost = replace(row.cost, latency_p50_ms=ms)
    results = with_rows(results, {"cost": cost}, group=row.group, dataset="cityscapes")

    [found] = beside(results, SECONDS)

    assert found.ours == pytest.approx(ms / 1000)
    assert found.verdict.word == word


def test_a_difference_of_times_has_no_noise_of_the_last_bit() -> None:
    results = rehearsed("stride_figure")
    [row] = [r for r in results.rows if r.stride_px == 24 and r.dataset == "cityscapes"
             and r.method == "teacher"]  # fmt: skip
    results = with_rows(
        results, {"cost": replace(row.cost, latency_p50_ms=24_700.000000000004)},
        group=row.group, dataset="cityscapes",
    )  # fmt: skip

    [table] = [b for b in paper_section(beside(results, SECONDS)) if isinstance(b, Table)]

    [cells] = table.rows
    assert cells[table.headers.index("Difference")].text == "+0"


def test_two_data_sets_of_one_name_are_each_beside_the_paper() -> None:
    results = rehearsed("main_table")
    again = [
        replace(row, group="half", dataset_digest="half", miou=0.5, stages={"evaluate": "half"})
        for row in results.rows
        if (row.backbone, row.method, row.refiner, row.dataset)
        == ("siglip2-b16-512", "student", "none", "voc21")
    ]
    matches = [
        *results.matches,
        *(replace(one, group="half") for one in results.matches if one.number == VOC),
    ]
    both = replace(results, rows=[*results.rows, *again], matches=matches)

    found = beside(with_distinct_datasets(both), VOC)

    assert [one.ours for one in found] == pytest.approx([47.3, 50.0])


def test_a_row_that_departs_from_the_papers_is_shown_but_not_judged() -> None:
    results = rehearsed("main_table")
    departs = ["100 of 1449 images of voc21", "windows of 384 px, not 512"]
    matches = [
        replace(one, departures=departs) if one.number == VOC else one for one in results.matches
    ]

    [found] = beside(replace(results, matches=matches), VOC)

    assert found.ours == pytest.approx(47.3)
    assert found.verdict.word == "not_comparable"
    assert found.verdict.reason == "; ".join(departs)


def test_noise_over_images_may_reach_the_papers_number() -> None:
    results = with_rows(rehearsed("main_table"), {"miou": 0.478}, **SPAR, dataset="voc21")
    one = published("main_table")[VOC]
    [row] = [r for r in results.rows if (r.group, r.dataset) == (group(results), "voc21")]
    evaluations = InMemory({row.stages["evaluate"]: counts_of(46.5, 3)})

    [found] = [b for b in beside_the_paper(results, Resampler(evaluations)) if b.published == one]

    assert found.interval is not None
    assert found.interval[0] < 47.3 < found.interval[1]
    assert found.verdict.word == "within_noise"


def test_a_line_of_the_data_has_the_numbers_and_the_reason() -> None:
    change: dict[str, object] = {"miou": 0.5}
    results = with_rows(rehearsed("main_table"), change, **SPAR, dataset="voc21")

    table = paper_data(beside_the_paper(results, Resampler(InMemory())))

    assert table.columns == PAPER_COLUMNS
    line = table.rows[VOC]
    assert (line["dataset"], line["paper"], line["ours"]) == ("voc21", 47.3, 50.0)
    assert line["difference"] == pytest.approx(2.7)
    assert (line["verdict"], line["reason"]) == ("off", "")
    assert {str(row["dataset"]) for row in table.rows} == {*DATASETS, "mean6"}
