"""The paper's second figure: accuracy and the time of one image against effective resolution.

The effective resolution of an image is the side of the square with as many pixels.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    NullFormatter,
    NullLocator,
)

from spar_bench.published import Published
from spar_bench.report.aggregates import Aggregate, of_one_device
from spar_bench.report.behind import draw_behind, numbers_behind, paper_handle
from spar_bench.report.paper import matched_mious
from spar_bench.report.series import RESOLUTION, Axis, Series, series_along, with_marks
from spar_bench.report.style import (
    DIVIDES,
    PAGE_IN,
    Mark,
    draw_points,
    handle,
    legend_above,
    marks,
    new_figure,
)
from spar_bench.results import Results

LEAST_RESOLUTIONS = 3
NEAR = 0.025
"""Relative difference of resolutions that share a tick."""
_TICK = 0.09
"""Room that a tick's label needs, as a share of the axis."""
_FURTHER_BASELINES = [Mark("#404040", "*", 7.4), Mark("#404040", "D", 4.4)]
"""Marks of further single passes, as of other backbones."""


@dataclass(frozen=True)
class Resolutions:
    """What the figure shows: a line for each method with its settings.

    `is_timed` tells whether anything has a latency, all of one device; else the cost is in GFLOPs.
    `paper` has the paper's numbers, if they are about the same; `own` our mark for a line of
    theirs.
    """

    lines: list[Series]
    is_timed: bool
    paper: list[Published]
    own: dict[tuple[object, ...], Mark]

    def cost(self, aggregate: Aggregate) -> float | None:
        """Return the cost of one image, if it is known: seconds, or GFLOPs if nothing was timed."""
        if not self.is_timed:
            return aggregate.cost.gflops
        latency_ms = aggregate.cost.latency_p50_ms
        return None if latency_ms is None else latency_ms / 1000


def effective_px(aggregate: Aggregate) -> float:
    """Return the side of the square with as many pixels as an image; 0 if that is not known."""
    return math.sqrt((aggregate.cost.image_h or 0) * (aggregate.cost.image_w or 0))


def resolutions_of(results: Results, aggregates: Iterable[Aggregate]) -> Resolutions | None:
    """Return what there is of one data set, if it has enough resolutions."""
    aggregates = list(aggregates)
    shown = [each for each in aggregates if effective_px(each)]
    sides = tuple(dict.fromkeys(each.panel.eval_short_side_px for each in shown if each.mious))
    if len(sides) < LEAST_RESOLUTIONS:
        return None
    series = with_marks(series_along(shown, Axis(RESOLUTION, sides)), marks(aggregates))
    lines = _apart([one for one in series if one.joined])
    if not lines:
        return None
    every = [each for line in lines for each in line.aggregates]
    is_timed = any(each.cost.latency_p50_ms for each in every) and of_one_device(every)
    own = dict[tuple[object, ...], Mark]()
    for number, row in matched_mious(results):
        for line in lines:
            if any(row.stages.get("evaluate") in each.evaluations for each in line.aggregates):
                own[_line_of(number)] = line.points[0]
    return Resolutions(lines, is_timed, numbers_behind(results, every), own)


def resolution_figure(shown: Resolutions) -> Figure:
    """Draw accuracy on the left, cost on the right."""
    figure = new_figure(PAGE_IN, 2.3)
    accuracy, cost = figure.subplots(1, 2)
    handles: dict[str, Line2D] = {}
    for line in shown.lines:
        _draw_line(accuracy, line, [_percent(each) for each in line.aggregates])
        _draw_line(cost, line, [shown.cost(each) for each in line.aggregates], with_sd=False)
        handles[line.label] = handle(line.points[0], _dashes(line))
    if shown.paper:
        _draw_paper(accuracy, shown, "miou_percent")
        if shown.is_timed:
            _draw_paper(cost, shown, "seconds")
        handles["paper"] = paper_handle()
    accuracy.set_ylabel("mIoU (%)")
    cost.set_yscale("log")
    cost.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    cost.yaxis.set_minor_formatter(NullFormatter())
    untimed = "GFLOPs of one image (time not measured)"
    cost.set_ylabel("Time of one image (s)" if shown.is_timed else untimed)
    ticks = _ticks(shown)
    for axes in (accuracy, cost):
        axes.margins(x=0.05, y=0.08)
        axes.set_xlabel("Effective resolution: height × width (px)")
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FixedFormatter([f"{round(tick)}²" for tick in ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
    legend_above(figure, handles, columns=4)
    return figure


def _percent(aggregate: Aggregate) -> float | None:
    return None if aggregate.miou is None else 100 * aggregate.miou


def _apart(lines: list[Series]) -> list[Series]:
    """Give single passes but one, which share its mark, marks of their own.

    The one is that of the backbone which most lines are of.
    """
    count = Counter(line.aggregates[0].settings["backbone"] for line in lines)
    baselines = [line for line in lines if line.aggregates[0].method == "pretrained"]
    baselines.sort(key=lambda line: -count[line.aggregates[0].settings["backbone"]])
    other = dict(zip(map(id, baselines[1:]), _FURTHER_BASELINES, strict=False))
    return [
        replace(line, mark=mark, points=(mark,) * len(line.points))
        if (mark := other.get(id(line))) is not None
        else line
        for line in lines
    ]


def _draw_line(
    axes: Axes, line: Series, values: Sequence[float | None], *, with_sd: bool = True
) -> None:
    mark = line.points[0]
    known = [
        (effective_px(each), value, each.sd if with_sd else None)
        for each, value in zip(line.aggregates, values, strict=True)
        if value is not None
    ]
    x, y = [at for at, _, _ in known], [value for _, value, _ in known]
    axes.plot(x, y, color=mark.color, linestyle=_dashes(line), alpha=0.7, zorder=2)
    for at, value, sd in known:
        draw_points(axes, [at], [value], [mark], sds=[sd])


def _dashes(line: Series) -> Literal["-", ":"]:
    return ":" if line.points[0] in _FURTHER_BASELINES else "-"


def _line_of(one: Published) -> tuple[object, ...]:
    """Return what the numbers of one line of the paper's figure have in common."""
    return one.backbone, one.method, one.stride_px, one.trainable, one.images


def _draw_paper(axes: Axes, shown: Resolutions, quantity: str) -> None:
    lines: dict[tuple[object, ...], list[Published]] = {}
    for one in shown.paper:
        if one.quantity == quantity:
            lines.setdefault(_line_of(one), []).append(one)
    for key, numbers in lines.items():
        x = [float(one.effective_px or 0) for one in numbers]
        own = shown.own.get(key, DIVIDES)
        draw_behind(axes, x, [one.value for one in numbers], own, "-")


def _ticks(shown: Resolutions) -> list[float]:
    """Return the resolutions that have a tick: the paper's, and ours that are not near one."""
    wanted = [float(one.effective_px) for one in shown.paper if one.effective_px]
    wanted += [effective_px(each) for line in shown.lines for each in line.aggregates]
    reach = _TICK * (max(wanted) - min(wanted))
    kept = list[float]()
    for tick in dict.fromkeys(wanted):
        if all(abs(tick - other) > max(reach, NEAR * other) for other in kept):
            kept.append(tick)
    return sorted(kept)
