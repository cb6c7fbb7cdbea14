"""Draw accuracy against what was swept: lines for numbers, dots for names."""

import math
from collections.abc import Iterable
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from spar_bench.report import text
from spar_bench.report.arms import Arm, Panel, agrees, panels_of, say, value_text
from spar_bench.report.series import RESOLUTION, Axis, Series, marked, series_along
from spar_bench.report.style import (
    COLUMN_IN,
    DOES_NOT_DIVIDE,
    LETTER_IN,
    PAGE_IN,
    Mark,
    draw_point,
    legend_above,
    marks,
    new_figure,
)

MOST_REFERENCES = 4
MOST_LETTERS = 30
LETTER = 0.0175  # width of a letter under the axis, as a share of the axis


def axis_figure(arms: list[Arm], axis: Axis) -> Figure:
    """Draw the arms of one data set along `axis`, one facet per resolution."""
    shown = [arm for arm in arms if arm.miou is not None]
    panels: list[Panel | None] = [None] if axis.key == RESOLUTION else [*panels_of(shown)]
    series = {
        p: series_along([arm for arm in shown if p in (None, arm.panel)], axis) for p in panels
    }
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    n_series = max(len(its) for its in series.values())
    names = len(axis.values) * (0.12 + 0.1 * n_series) + 0.5
    title = 0.5 + LETTER_IN * len(axis.title)
    height = 2.2 if axis.is_numeric else max(min(names, 6.0), 1.1, title / rows)
    figure = new_figure((COLUMN_IN, PAGE_IN)[columns - 1], 0.1 + height * rows)
    facets = figure.subplots(rows, columns, squeeze=False, sharey=not axis.is_numeric).flatten()
    if not axis.is_numeric:
        figure.supylabel(text.plot(axis.title), fontsize=7)
    handles: dict[str, Line2D] = {}
    its_marks = marks(arms)
    for facet, panel in zip(facets, panels, strict=False):
        draw = _draw_numbers if axis.is_numeric else _draw_names
        handles |= draw(facet, marked(series[panel], its_marks), axis)
        if panel is not None:
            still = _references([arm for arm in shown if arm.panel == panel], axis)
            handles |= _draw_references(facet, still, axis, its_marks)
        if len(panels) > 1 and panel is not None:
            facet.set_title(text.plot(panel.title))
    for facet in facets[len(panels) :]:
        facet.remove()
    legend_above(figure, handles, columns=2 * columns)
    return figure


def _draw_numbers(axes: Axes, series: list[Series], axis: Axis) -> dict[str, Line2D]:
    """Draw one line per series, with mean and sd over seeds at each value; return the legend."""
    handles: dict[str, Line2D] = {}
    for its in series:
        _draw_line(axes, its, axis)
        handles |= _legend_of(its)
    if axis.is_log:
        axes.set_xscale("log")
    axes.margins(x=0.06, y=0.1)
    if any(its.joined for its in series):
        ticks, words = _written_out(axis)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FixedFormatter(words))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(text.plot(axis.title) + (", log axis" if axis.is_log else ""))
    axes.set_ylabel("mIoU (%)")
    return handles


def _draw_line(axes: Axes, series: Series, axis: Axis) -> None:
    x = [axis.of(arm) for arm in series.arms]
    y = [100 * (arm.miou or 0) for arm in series.arms]
    if series.joined:
        axes.plot(x, y, color=series.mark.color, alpha=0.6, zorder=2)
    for arm, mark, at, miou in zip(series.arms, series.points, x, y, strict=True):
        draw_point(axes, at, miou, mark, sd=arm.sd)


def _legend_of(series: Series) -> dict[str, Line2D]:
    """Return the legend of a series: one mark, or each mark if its arms have several."""
    line: Literal["-", "none"] = "-" if series.joined else "none"
    if len(set(series.points)) == 1:
        return {series.label: _handle(series.points[0], line)}
    if series.joined and series.arms[0].method != "teacher":
        return {series.label: Line2D([], [], color=series.mark.color)}
    if series.arms[0].method != "teacher":
        pairs = zip(series.arms, series.points, strict=True)
        return {arm.label: _handle(mark, line) for arm, mark in pairs}
    odd = [mark for mark in series.points if mark.marker == DOES_NOT_DIVIDE.marker]
    return {
        series.label: _handle(series.mark, line),
        "does not divide by patch": _handle(odd[0], "none"),
    }


def _written_out(axis: Axis) -> tuple[list[float], list[str]]:
    """Return ticks and labels: every value, on a second line where the first has no room."""
    place = math.log if axis.is_log else float
    values = sorted(axis.values)
    ticks, words, last = [], [], [-math.inf, -math.inf]
    for value in values:
        word = f"{value:.4g}"
        room = (place(values[-1]) - place(values[0])) * LETTER * (len(word) + 1.2)
        line = next((line for line in (0, 1) if place(value) - last[line] >= room), None)
        if line is not None:
            last[line] = place(value)
            ticks.append(float(value))
            words.append("\n" * line + word)
    return ticks, words


def _draw_names(axes: Axes, series: list[Series], axis: Axis) -> dict[str, Line2D]:
    """Draw one row per value: a faint dot per seed, mean and sd over them; return the legend."""
    for nth, its in enumerate(series):
        aside = 0.8 * ((nth + 0.5) / len(series) - 0.5)
        for arm, mark in zip(its.arms, its.points, strict=True):
            row = axis.values.index(axis.of(arm)) + aside
            if len(arm.mious) > 1:
                seeds = [100 * miou for miou in arm.mious]
                axes.plot(seeds, [row] * len(seeds), "o", color=mark.color, alpha=0.45, ms=2.2)
            draw_point(axes, 100 * (arm.miou or 0), row, mark, sd=arm.sd, across=True)
    words = [text.plot(value_text(value), MOST_LETTERS) for value in axis.values]
    axes.set_yticks(range(len(words)), words)
    axes.set_ylim(len(words) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)
    axes.set_xlabel("mIoU (%)")
    if len(series) == 1:
        return {}
    return {label: handle for its in series for label, handle in _legend_of(its).items()}


def _references(arms: list[Arm], axis: Axis) -> list[Arm]:
    """Return arms unaffected by the axis that belong to affected ones: a student's own teacher.

    If there are too many, the best are kept; the lowest comes first.
    """
    moved = [arm for arm in arms if axis.moves(arm)]
    still = [arm for arm in arms if arm not in moved]
    related = [arm for arm in still if any(agrees(arm, other, but=[axis.key]) for other in moved)]
    return sorted(related, key=lambda arm: arm.miou or 0)[-MOST_REFERENCES:]


def _draw_references(
    axes: Axes, arms: Iterable[Arm], axis: Axis, its_marks: dict[str, Mark]
) -> dict[str, Line2D]:
    """Draw a dashed line at each of `arms`; return the legend."""
    handles = {}
    for arm in arms:
        draw = axes.axhline if axis.is_numeric else axes.axvline
        color = its_marks[arm.label].color
        dashes = {"pretrained": (1, 1.5), "teacher": (5, 1.5)}.get(arm.method, (3, 1.5))
        draw(100 * (arm.miou or 0), color=color, linewidth=0.9, dashes=dashes, zorder=1.5)
        taught = f" (from {say(axis.key, axis.of(arm))})" if axis.of(arm) is not None else ""
        handles[arm.name + taught] = Line2D([], [], color=color, linewidth=0.9, dashes=dashes)
    return handles


def _handle(mark: Mark, linestyle: Literal["-", "none"]) -> Line2D:
    return Line2D(
        [], [], color=mark.color, linestyle=linestyle, marker=mark.marker, markersize=mark.size,
        markeredgecolor="white", markeredgewidth=0.5,
    )  # fmt: skip
