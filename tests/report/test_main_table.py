"""The main table: rows and columns as the paper's, the best in bold, nothing filled in."""

from dataclasses import replace

from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.main_table import main_table
from spar_bench.report.page import Cell, Table
from spar_bench.results import Results
from tests.report.rehearsal import rehearsed
from tests.report.synthetic import baseline, results_of, students, teacher

RESULTS = rehearsed("main_table")


def table_of(results: Results) -> Table:
    table = main_table(results, read_aggregates(results))
    assert table is not None
    return table


def named(table: Table) -> list[tuple[str, str]]:
    """Return the backbone and the name of each row."""
    return [(row[0].text, row[1].text) for row in table.rows]


def test_rows_stand_by_backbone_and_by_refiner_in_the_papers_order() -> None:
    rows = named(table_of(replace(RESULTS, rows=RESULTS.rows[::-1])))

    start = rows.index(("siglip2-b16-512", "sliding window, s = 24"))
    assert rows[start : start + 7] == [
        ("siglip2-b16-512", "sliding window, s = 24"),
        ("siglip2-b16-512", "single pass"),
        ("siglip2-b16-512", "SPAR"),
        ("siglip2-b16-512", "single pass + anyup"),
        ("siglip2-b16-512", "SPAR + anyup"),
        ("siglip2-b16-512", "single pass + lposs"),
        ("siglip2-b16-512", "SPAR + lposs"),
    ]
    assert len(rows) == 18


def test_the_best_of_each_column_within_a_backbone_is_bold() -> None:
    table = table_of(RESULTS)

    bold = {
        (table.rows[at][1].text, header): cell.text
        for at in range(1, 8)
        for header, cell in zip(table.headers, table.rows[at], strict=True)
        if cell.is_best
    }
    assert bold == {
        ("SPAR + lposs", "voc21"): "51.2",
        ("SPAR + lposs", "voc20"): "89.7",
        ("SPAR + lposs", "cityscapes"): "39.2",
        ("SPAR + anyup", "ade20k"): "26.1",
        ("SPAR + anyup", "context60"): "37.1",
        ("SPAR + anyup", "context59"): "41.5",
        ("SPAR + anyup", "Mean"): "46.8",
    }


def test_a_cell_that_was_not_run_is_a_dash_and_so_is_its_mean() -> None:
    rows = [
        replace(row, miou=None, status="skipped")
        if (row.dataset, row.method, row.refiner) == ("voc20", "student", "none")
        else row
        for row in RESULTS.rows
        if (row.dataset, row.refiner) != ("ade20k", "lposs")
    ]

    table = table_of(replace(RESULTS, rows=rows))

    cells = {row[1].text: dict(zip(table.headers, row, strict=True)) for row in table.rows[1:8]}
    assert cells["SPAR"]["voc20"] == cells["SPAR"]["Mean"] == Cell("–")
    assert cells["SPAR + lposs"]["ade20k"] == cells["SPAR + lposs"]["Mean"] == Cell("–")
    assert cells["SPAR"]["voc21"].text == "47.3"


def test_a_cell_that_failed_says_so() -> None:
    rows = [
        replace(row, miou=None, status="failed") if row.dataset == "voc20" else row
        for row in RESULTS.rows
    ]

    assert {row[3].text for row in table_of(replace(RESULTS, rows=rows)).rows} == {"failed"}


def test_several_data_sets_have_the_table_without_being_the_papers() -> None:
    here = [baseline(38), teacher(12, 46), *students("all", 42)]
    there = [
        replace(row, dataset="streets", miou=(row.miou or 0) + 0.1,
                stages={"evaluate": f"streets/{row.stages['evaluate']}"})
        for row in here
    ]  # fmt: skip

    table = table_of(results_of([*here, *there]))

    assert table.headers == ["Backbone", "Row", "patchwork", "streets", "Mean"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["patchwork", "sliding window, s = 12", "46.0", "56.0", "51.0"],
        ["patchwork", "single pass", "38.0", "48.0", "43.0"],
        ["patchwork", "SPAR all", "42.0", "52.0", "47.0"],
    ]
    assert table.rows[2][-1].spread == ["± 0.4", "(n = 3)"]
    assert main_table(results_of(here), read_aggregates(results_of(here))) is None
