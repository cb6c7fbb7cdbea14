"""Draw accuracy against what was swept: lines for numbers, dots for names."""

import math
from collections.abc import Iterable
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from spar_bench.report import text
from spar_bench.report.aggregates import Aggregate, Panel, agrees, panels_of
from spar_bench.report.names import setting_text, value_text
from spar_bench.report.series import RESOLUTION, Axis, Series, series_along, with_marks
from spar_bench.report.style import (
    DOES_NOT_DIVIDE,
    LETTER_IN,
    Mark,
    draw_points,
    facet_grid,
    handle,
    legend_above,
    marks,
    marks_apart,
)

MOST_REFERENCES = 4
MOST_LETTERS = 30
LETTER = 0.0175  # width of a letter under the axis, as a share of the axis


def axis_figure(aggregates: list[Aggregate], axis: Axis) -> Figure:
    """Draw the aggregates of one data set along `axis`, one facet per resolution."""
    shown = [each for each in aggregates if each.miou is not None]
    panels: list[Panel | None] = [None] if axis.key == RESOLUTION else [*panels_of(shown)]
    here = {panel: [each for each in shown if panel in (None, each.panel)] for panel in panels}
    series = {panel: series_along(here[panel], axis) for panel in panels}
    figure, facets = _facets(axis, len(panels), max(map(len, series.values())))
    references = {panel: _references(here[panel], axis) if panel else [] for panel in panels}
    apart = marks_apart([each for some in references.values() for each in some], aggregates)
    handles: dict[str, Line2D] = {}
    for facet, panel in zip(facets, panels, strict=True):
        draw = _draw_numbers if axis.is_numeric else _draw_names
        handles |= draw(facet, with_marks(series[panel], marks(aggregates)), axis)
        handles |= _draw_references(facet, references[panel], axis, apart)
        if len(panels) > 1 and panel is not None:
            facet.set_title(text.plot(panel.title))
    legend_above(figure, handles, columns=2 * min(2, len(panels)))
    return figure


def _facets(axis: Axis, n_panels: int, n_series: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with a facet for each panel, for names with room for each of them."""
    if axis.is_numeric:
        return facet_grid(n_panels, 2.2, above_in=0.1)
    rows = math.ceil(n_panels / 2)
    names = len(axis.values) * (0.12 + 0.1 * n_series) + 0.5
    title = (0.5 + LETTER_IN * len(axis.title)) / rows
    height = max(min(names, 6.0), 1.1, title)
    figure, facets = facet_grid(n_panels, height, above_in=0.1, sharey=True)
    figure.supylabel(text.plot(axis.title), fontsize=7)
    return figure, facets


def _draw_numbers(axes: Axes, series: list[Series], axis: Axis) -> dict[str, Line2D]:
    """Draw one line per series, with mean and sd over seeds at each value; return the legend."""
    handles: dict[str, Line2D] = {}
    for line in series:
        _draw_line(axes, line, axis)
        handles |= _legend_of(line)
    if axis.is_log:
        axes.set_xscale("log")
    axes.margins(x=0.06, y=0.1)
    if any(line.joined for line in series):
        ticks, names = _written_out(axis)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FixedFormatter(names))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(text.plot(axis.title) + (", log axis" if axis.is_log else ""))
    axes.set_ylabel("mIoU (%)")
    return handles


def _draw_line(axes: Axes, series: Series, axis: Axis) -> None:
    x = [axis.of(aggregate) for aggregate in series.aggregates]
    y = [100 * (aggregate.miou or 0) for aggregate in series.aggregates]
    if series.joined:
        axes.plot(x, y, color=series.mark.color, alpha=0.6, zorder=2)
    draw_points(axes, x, y, series.points, sds=[each.sd for each in series.aggregates])


def _legend_of(series: Series) -> dict[str, Line2D]:
    """Return the legend of a series: one mark, or each mark if its aggregates have several."""
    line: Literal["-", "none"] = "-" if series.joined else "none"
    if len(set(series.points)) == 1:
        return {series.label: handle(series.points[0], line)}
    if series.joined and series.aggregates[0].method != "teacher":
        return {series.label: Line2D([], [], color=series.mark.color)}
    if series.aggregates[0].method != "teacher":
        pairs = zip(series.aggregates, series.points, strict=True)
        return {aggregate.label: handle(mark, line) for aggregate, mark in pairs}
    odd = [mark for mark in series.points if mark.marker == DOES_NOT_DIVIDE.marker]
    return {
        series.label: handle(series.mark, line),
        "does not divide by patch": handle(odd[0], "none"),
    }


def _written_out(axis: Axis) -> tuple[list[float], list[str]]:
    """Return ticks and labels: every value, on a second line where the first has no room."""
    place = math.log if axis.is_log else float
    values = sorted(axis.values)
    ticks, names, last = [], [], [-math.inf, -math.inf]
    for value in values:
        word = f"{value:.4g}"
        room = (place(values[-1]) - place(values[0])) * LETTER * (len(word) + 1.2)
        line = next((line for line in (0, 1) if place(value) - last[line] >= room), None)
        if line is not None:
            last[line] = place(value)
            ticks.append(float(value))
            names.append("\n" * line + word)
    return ticks, names


def _draw_names(axes: Axes, series: list[Series], axis: Axis) -> dict[str, Line2D]:
    """Draw one row per value: a faint dot per seed, mean and sd over them; return the legend."""
    for nth, line in enumerate(series):
        aside = 0.8 * ((nth + 0.5) / len(series) - 0.5)
        for aggregate, mark in zip(line.aggregates, line.points, strict=True):
            row = axis.values.index(axis.of(aggregate)) + aside
            if len(aggregate.mious) > 1:
                seeds = [100 * miou for miou in aggregate.mious]
                axes.plot(seeds, [row] * len(seeds), "o", color=mark.color, alpha=0.45, ms=2.2)
            miou = 100 * (aggregate.miou or 0)
            draw_points(axes, [miou], [row], [mark], sds=[aggregate.sd], across=True)
    names = [text.plot(value_text(value), MOST_LETTERS) for value in axis.values]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.08)
    axes.set_xlabel("mIoU (%)")
    if len(series) == 1:
        return {}
    return {label: handle for line in series for label, handle in _legend_of(line).items()}


def _references(aggregates: list[Aggregate], axis: Axis) -> list[Aggregate]:
    """Return aggregates unaffected by the axis that belong to affected ones, the lowest first.

    They are single pass, and of all others, such as the students of teachers, the best.
    """
    moved = [each for each in aggregates if axis.moves(each)]
    still = [each for each in aggregates if not axis.moves(each)]
    related = [a for a in still if any(agrees(a, other, but=[axis.key]) for other in moved)]
    by_miou = sorted(related, key=lambda each: each.miou or 0)
    others = [each for each in by_miou if each.method != "pretrained"][-MOST_REFERENCES:]
    return [each for each in by_miou if each.method == "pretrained" or each in others]


def _draw_references(
    axes: Axes, aggregates: Iterable[Aggregate], axis: Axis, mark_of: dict[str, Mark]
) -> dict[str, Line2D]:
    """Draw a dashed line at each of `aggregates`; return the legend."""
    handles = {}
    for each in aggregates:
        draw = axes.axhline if axis.is_numeric else axes.axvline
        color = mark_of[each.label].color
        dashes = {"pretrained": (1, 1.5), "teacher": (5, 1.5)}.get(each.method, (3, 1.5))
        draw(100 * (each.miou or 0), color=color, linewidth=0.9, dashes=dashes, zorder=1.5)
        at = axis.of(each)
        teacher = "" if at is None else f" (from {setting_text(axis.key, at)})"
        handles[each.name + teacher] = Line2D([], [], color=color, linewidth=0.9, dashes=dashes)
    return handles
