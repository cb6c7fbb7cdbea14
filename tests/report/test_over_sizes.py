"""The table of costs over the sizes of images, and its data file."""

import csv
import io
from typing import Any

from spar_bench.report.data import sizes_data
from spar_bench.report.over_sizes import sizes_section
from spar_bench.report.page import Page, Table, Text
from spar_bench.report.renderers import data
from spar_bench.results import SIZES_COLUMNS, OverSizes, SizesRow
from tests.report.synthetic import cost, results_of


def sizes_row(method: str = "teacher", n_sizes: int = 3, **changes: Any) -> SizesRow:
    """Return a line of sizes.csv."""
    over: dict[str, Any] = {
        "n_images": 50, "n_sizes": n_sizes, "gflops_mean": 12.3456, "gflops_sum": 617.28,
        "gflops_p10": 8.0, "gflops_p50": 12.0, "gflops_p90": 20.04, "n_timed": 3,
        "latency_mean_ms": 98.76, "images_per_s": 10.1255, "fit_error": 0.0213, "base_ms": 1.0,
        "ms_a_gflop": 7.9, "ms_a_megapixel": 0.0,
    }  # fmt: skip
    return SizesRow(
        backbone="patchwork",
        random_weights=False,
        method=method,
        inference="sliding_window" if method == "teacher" else "single_pass",
        average="logits" if method == "teacher" else None,
        refiner="none",
        window_px=64 if method == "teacher" else None,
        stride_px=12 if method == "teacher" else None,
        dataset="streets",
        dtype="float32",
        cost=cost(11.5),
        eval_short_side_px=256,
        over=OverSizes(**over | changes),
    )


def blocks(*rows: SizesRow) -> tuple[list[Table], list[str]]:
    """Return the tables and the texts of the section of some rows."""
    found = list(sizes_section(results_of([], sizes=list(rows))))
    tables = [block for block in found if isinstance(block, Table)]
    return tables, [block.text for block in found if isinstance(block, Text)]


def test_table_tells_methods_apart_and_states_the_error_of_the_curve() -> None:
    [table], [note] = blocks(sizes_row("pretrained"), sizes_row())

    assert table.caption == "Cost over all images: streets"
    assert table.headers[:4] == ["Method", "Window (px)", "Stride (px)", "Average"]
    single, teacher = ([cell.text for cell in row] for row in table.rows)
    assert single[:4] == ["single pass", "–", "–", "–"]
    assert teacher == [
        "sliding window", "64", "12", "logits", "50", "3", "12.3", "8.00–20.0", "98.8 (2.1 %)",
        "10.1",
    ]  # fmt: skip
    assert table.n_text == 4
    assert "Costs in the tables above are for one image of one size" in note


def test_data_set_whose_images_have_one_size_has_no_table() -> None:
    assert blocks(sizes_row(n_sizes=1)) == ([], [])


def test_what_was_not_timed_or_counted_says_so() -> None:
    none: Any = dict.fromkeys(
        ("latency_mean_ms", "images_per_s", "fit_error", "gflops_mean", "gflops_p10")
    )
    [table], _ = blocks(sizes_row(**none))

    [row] = table.rows
    assert [cell.text for cell in row][-4:] == ["not measured"] * 4


def test_curve_of_a_loaded_machine_is_marked() -> None:
    [table], [_, note] = blocks(sizes_row(fit_note="others kept 2.0 of 2 cores busy"))

    assert table.rows[0][-2].text == "98.8† (2.1 %)"
    assert note.startswith("† As on a loaded machine")


def test_data_have_the_costs_of_all_images_and_of_one() -> None:
    table = sizes_data(results_of([], sizes=[sizes_row()]))

    [line] = csv.DictReader(io.StringIO(data.render(Page("x", [table]))["sizes.csv"]))

    assert list(line) == SIZES_COLUMNS
    assert (line["n_images"], line["n_sizes"], line["gflops_sum"]) == ("50", "3", "617.28")
    assert (line["gflops"], line["image_h"], line["image_w"]) == ("11.5", "256", "320")
