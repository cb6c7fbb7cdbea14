"""A rehearsal: the paper's own numbers, fed as runs, come out of a report as they went in."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spar_bench.published import published, tables
from spar_bench.report import write
from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.behind import PAPER
from spar_bench.report.figures import plan_figures
from spar_bench.report.main_table import main_table
from spar_bench.report.plans import FigurePlan
from spar_bench.report.style import house_style
from spar_bench.results import Results
from tests.report.rehearsal import DATASETS, lines_of, rehearsed
from tests.report.synthetic import InMemory

Points = list[tuple[float, float]]


def drawn(results: Results, name: str) -> Figure:
    """Draw the figure of this name."""
    plans = plan_figures(results, read_aggregates(results), InMemory())
    plan = next(plan for plan in plans if plan.name == name)
    with house_style():
        return plan.draw()


def ours(axes: Axes) -> Points:
    """Return what is drawn as ours: a mark with its bar each."""
    bars = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    return _points(np.concatenate([np.asarray(one.lines[0].get_xydata()) for one in bars]))


def behind(axes: Axes) -> Points:
    """Return what is drawn as the paper's: hollow marks."""
    lines = [line for line in axes.get_lines() if line.get_gid() == PAPER]
    assert all(line.get_markerfacecolor() == "none" for line in lines)
    return _points(np.concatenate([np.asarray(line.get_xydata()) for line in lines]))


def _points(coordinates: NDArray[np.float64]) -> Points:
    return sorted((round(float(x), 9), round(float(y), 9)) for x, y in coordinates)


@pytest.mark.parametrize("table", tables())
def test_every_verdict_is_reproduced(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_the_table(*of: Any) -> list[FigurePlan]:
        """Plan the one figure that is the table's: all of six data sets take a minute."""
        return [plan for plan in plan_figures(*of) if plan.name == table]

    monkeypatch.setattr("spar_bench.report.writing.plan_figures", of_the_table)

    write(rehearsed(table), InMemory(), tmp_path)

    with (tmp_path / "paper.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(published(table))
    assert Counter(line["verdict"] for line in lines) == {"reproduced": len(lines)}
    assert [line["paper"] for line in lines] == [str(one.value) for one in published(table)]
    assert (tmp_path / f"{table}.svg").is_file() is (table != "main_table")
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"The paper's {table.replace('_', ' ')}: {len(lines)} reproduced." in page


def test_the_figure_of_strides_shows_the_published_points_twice() -> None:
    figure = drawn(rehearsed("stride_figure"), "stride_figure")

    [axes] = figure.axes
    of = {
        (one.method, one.stride_px, one.quantity): one.value for one in published("stride_figure")
    }
    points = _points(
        np.array([
            (of[method, stride, "seconds"], value)
            for (method, stride, quantity), value in of.items()
            if quantity == "miou_percent"
        ])
    )  # fmt: skip
    assert len(points) == 12
    assert ours(axes) == points
    assert behind(axes) == points
    assert axes.get_ylabel() == "Mean mIoU over 6 data sets (%)"
    assert axes.get_xlabel() == "Time of one image of 1024×2048 px (s)"


def test_the_arrows_say_what_the_paper_says() -> None:
    [axes] = drawn(rehearsed("stride_figure"), "stride_figure").axes

    words = {note.get_text() for note in axes.texts}
    assert {"+10.5 mIoU", "51× faster"} <= words  # the paper rounds 24.7 / 0.48 = 51.5 to 52


@pytest.mark.parametrize(("panel", "quantity"), [(0, "miou_percent"), (1, "seconds")])
def test_the_figure_of_resolutions_shows_the_published_lines_twice(
    panel: int, quantity: str
) -> None:
    figure = drawn(rehearsed("resolution_figure"), "resolution_figure")

    lines = [
        [(float(one.effective_px or 0), one.value) for one in numbers]
        for numbers in lines_of("resolution_figure", quantity)
    ]
    points = _points(np.array([point for line in lines for point in line]))
    axes = figure.axes[panel]
    assert ours(axes) == points
    assert behind(axes) == points
    hollow = [line for line in axes.get_lines() if line.get_gid() == PAPER]
    found = [_points(np.asarray(line.get_xydata())) for line in hollow]
    assert sorted(found) == sorted(_points(np.array(line)) for line in lines)
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == [f"{px}²" for px in (512, 1024, 1536, 2048, 2560, 3072)]


def test_the_main_table_has_the_published_cells() -> None:
    results = rehearsed("main_table")

    table = main_table(results, read_aggregates(results))

    assert table is not None
    assert table.headers == ["Backbone", "Row", *DATASETS, "Mean"]
    cells = Counter(
        (header, cell.text)
        for row in table.rows
        for header, cell in zip(table.headers[2:-1], row[2:-1], strict=True)
    )
    numbers = [one for one in published("main_table") if one.dataset != "mean6"]
    assert cells == Counter((one.dataset, f"{one.value:.1f}") for one in numbers)
    means = [float(row[-1].text) for row in table.rows]
    published_means = [one.value for one in published("main_table") if one.dataset == "mean6"]
    np.testing.assert_allclose(sorted(means), sorted(published_means), atol=0.1001)


@pytest.mark.parametrize("table", ["stride_figure", "resolution_figure"])
def test_nothing_of_the_paper_is_behind_where_no_spec_names_its_figure(table: str) -> None:
    results = replace(rehearsed(table), reproduces=None)

    figure = drawn(results, table)

    assert not [
        line for axes in figure.axes for line in axes.get_lines() if line.get_gid() == PAPER
    ]
    names = [entry.get_text() for legend in figure.legends for entry in legend.get_texts()]
    assert names
    assert "paper" not in names
