"""Draw accuracy against cost: labelled points, strides joined by a line, the Pareto front."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from spar_bench.report import text
from spar_bench.report.aggregates import Aggregate, panels_of, stride_series
from spar_bench.report.labels import Label, write_labels
from spar_bench.report.placement import Floats
from spar_bench.report.style import (
    DIVIDES,
    DOES_NOT_DIVIDE,
    LIGHT,
    Mark,
    draw_points,
    facet_grid,
    handle,
    legend_above,
    marks,
)

MOST_LABELS = 18
LEAST_SPAN = 5.0  # points of mIoU that the axis shows at least


@dataclass(frozen=True)
class CostAxis:
    """What accuracy is plotted against: a file name, a title with unit, and how to read it.

    A cost that is a device's is never drawn on one axis with that of another device.
    """

    name: str
    title: str
    value: Callable[[Aggregate], float | None]
    is_of_device: bool = False


def pareto_front(costs: Sequence[float], mious: Sequence[float]) -> list[int]:
    """Return the indices of points that no other beats in both, from cheap to expensive."""
    front: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -mious[i])):
        if not front or mious[index] > mious[front[-1]]:
            front.append(index)
    return front


def tradeoff_figure(aggregates: list[Aggregate], axis: CostAxis) -> Figure:
    """Draw the `aggregates` that have both accuracy and this cost, in facets."""
    mark_of = marks(aggregates)
    parts = _facets(aggregates, axis)
    figure, facets = facet_grid(len(parts), 2.5, above_in=0.15)
    for facet, (title, here) in zip(facets, parts.items(), strict=True):
        _draw_facet(facet, here, axis, mark_of)
        if len(parts) > 1:
            facet.set_title(text.plot(title))
    _add_legend(figure, _with_cost(aggregates, axis), axis)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels are placed for the current axes
    for facet, here in zip(facets, parts.values(), strict=True):
        _label(facet, here, axis, mark_of)
    return figure


def _facets(aggregates: Iterable[Aggregate], axis: CostAxis) -> dict[str, list[Aggregate]]:
    """Return the points of each facet by its title: of one panel, and of one device if costs are.

    A facet is named by what several of them differ in.
    """
    shown = _with_cost(aggregates, axis)
    devices = {each.device for each in shown} if axis.is_of_device else set()
    several = len(panels_of(shown)) > 1 or len(devices) < 2
    parts: dict[str, list[Aggregate]] = {}
    for panel in panels_of(shown):
        for each in (each for each in shown if each.panel == panel):
            names = [panel.title] if several else []
            names += [each.device] if len(devices) > 1 else []
            parts.setdefault(", ".join(names), []).append(each)
    return parts


def named_of_all(aggregates: list[Aggregate], axis: CostAxis) -> tuple[int, int]:
    """Return how many points of a figure are named at most, and how many there are."""
    parts = _facets(aggregates, axis).values()
    return sum(len(_worth_a_label(here, axis)) for here in parts), sum(map(len, parts))


def _with_cost(aggregates: Iterable[Aggregate], axis: CostAxis) -> list[Aggregate]:
    return [each for each in aggregates if each.miou is not None and axis.value(each) is not None]


def _draw_facet(
    axes: Axes, aggregates: list[Aggregate], axis: CostAxis, mark_of: dict[str, Mark]
) -> None:
    x, y = _coordinates(aggregates, axis)
    front = pareto_front(list(x), list(y))
    _draw_front(axes, x[front], y[front])
    lines = [np.stack(_coordinates(line, axis), axis=1) for line in _stride_lines(aggregates)]
    joined = LineCollection(lines, colors=DIVIDES.color, linewidths=0.9, alpha=0.55, zorder=2)
    axes.add_collection(joined, autolim=False)
    marked = [mark_of[each.label] for each in aggregates]
    draw_points(axes, list(x), list(y), marked, sds=[each.sd for each in aggregates])
    scale(axes, x, y)
    sizes = {(aggregate.cost.image_h, aggregate.cost.image_w) for aggregate in aggregates}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    where = f" of {height}×{width} px" if height and width else ""
    axes.set_xlabel(axis.title.format(where=where))
    axes.set_ylabel("mIoU (%)")


def has_front(aggregates: Sequence[Aggregate], axis: CostAxis) -> bool:
    """Tell whether some facet has a front of more than one point, i.e. one to be seen."""
    points = (_coordinates(here, axis) for here in _facets(aggregates, axis).values())
    return any(len(pareto_front(list(x), list(y))) > 1 for x, y in points)


def _draw_front(axes: Axes, x: Floats, y: Floats) -> None:
    """Draw the best accuracy up to each cost: level until a more expensive point is better."""
    corners = np.repeat(np.stack([x, y], axis=1), 2, axis=0)
    axes.plot(corners[1:, 0], corners[:-1, 1], color=LIGHT, linewidth=2.2, zorder=1)


def scale(axes: Axes, x: Floats, y: Floats) -> None:
    """Set a log axis with room for labels, and ticks as plain numbers."""
    axes.set_xscale("log")
    reach = max(float(np.log10(x.max() / x.min())), 0.6)
    middle = float(np.log10(x.max() * x.min())) / 2
    axes.set_xlim(10 ** (middle - 0.66 * reach), 10 ** (middle + 0.66 * reach))
    axes.set_ylim(*_range(float(y.min()), float(y.max())))
    if reach < 2.2:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if reach < 1.5 else (1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _range(lowest: float, highest: float) -> tuple[float, float]:
    """Return the ends of an axis of mIoU: never below 0, and far enough apart to be readable."""
    room = max(0.16 * max(highest - lowest, 1.0), (LEAST_SPAN - (highest - lowest)) / 2)
    bottom = max(lowest - room, 0.0)
    return bottom, max(highest + room, bottom + LEAST_SPAN)


def _coordinates(aggregates: Iterable[Aggregate], axis: CostAxis) -> tuple[Floats, Floats]:
    pairs = [(axis.value(each), 100 * each.miou) for each in aggregates if each.miou is not None]
    return np.array([x for x, _ in pairs], dtype=float), np.array([y for _, y in pairs])


def has_lines(aggregates: Iterable[Aggregate]) -> bool:
    """Tell whether some strides of `aggregates` form a line."""
    return bool(_stride_lines(aggregates))


def _stride_lines(aggregates: Iterable[Aggregate]) -> list[list[Aggregate]]:
    return [series for series in stride_series(aggregates) if len(series) > 1]


def _add_legend(figure: Figure, aggregates: list[Aggregate], axis: CostAxis) -> None:
    handles = {}
    line: Literal["-", "none"] = "-" if has_lines(aggregates) else "none"
    divides = {each.divides_patch for each in aggregates if each.method == "teacher"}
    for does_divide, mark, name in (
        (True, DIVIDES, "stride divides by patch"),
        (False, DOES_NOT_DIVIDE, "does not divide"),
    ):
        if does_divide in divides:
            handles[name] = handle(mark, line, color=DIVIDES.color, linewidth=0.9)
    if has_front(aggregates, axis):
        handles["Pareto front"] = Line2D([], [], color=LIGHT, linewidth=2.2)
    legend_above(figure, handles, columns=3)


def _label(
    axes: Axes, aggregates: list[Aggregate], axis: CostAxis, mark_of: dict[str, Mark]
) -> None:
    named = _worth_a_label(aggregates, axis)
    labels = [
        Label(each.label, (float(x), float(y)), mark_of[each.label].color)
        for each, x, y in zip(named, *_coordinates(named, axis), strict=True)
    ]
    write_labels(axes, labels, np.stack(_coordinates(aggregates, axis), axis=1))


def _worth_a_label(aggregates: list[Aggregate], axis: CostAxis) -> list[Aggregate]:
    """Return all, or if too many the Pareto front and the best of each method and line.

    Those of lines are left out where they are too many, and then the worse end of the front.
    """
    if len(aggregates) <= MOST_LABELS:
        return aggregates
    x, y = _coordinates(aggregates, axis)
    place = {id(aggregate): i for i, aggregate in enumerate(aggregates)}
    by_method = {aggregates[i].method: i for i in np.argsort(y, kind="stable")}
    front = pareto_front(list(x), list(y))[::-1]
    lines = _stride_lines(aggregates)
    ends = [max((place[id(each)] for each in line), key=lambda i: y[i]) for line in lines]
    few = dict.fromkeys([*by_method.values(), *front])
    every = dict.fromkeys([*few, *ends])
    kept = list(every if len(every) <= MOST_LABELS else few)[:MOST_LABELS]
    return [aggregates[i] for i in sorted(kept)]
