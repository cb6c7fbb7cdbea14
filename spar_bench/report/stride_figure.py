"""The paper's first figure: accuracy against the time of one image, by the teacher's stride.

Two arrows say what a student gains: accuracy over a single pass, time over its teacher.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spar_bench.published import Published
from spar_bench.report import text
from spar_bench.report.aggregates import Aggregate, agrees, of_one_device, stride_series
from spar_bench.report.behind import COLOR, draw_behind, numbers_behind, paper_handle
from spar_bench.report.labels import Label, write_labels
from spar_bench.report.means import over_panels, summed_panels
from spar_bench.report.placement import Floats
from spar_bench.report.style import (
    COLUMN_IN,
    DIVIDES,
    DOES_NOT_DIVIDE,
    GREY,
    Mark,
    draw_points,
    handle,
    legend_above,
    marks,
    new_figure,
)
from spar_bench.report.tradeoff import scale
from spar_bench.results import Results

LEAST_STRIDES = 3
MOST_STUDENTS = 4
LEAST_ARROW_PT = 14.0
CLEAR_PT = 5.5
"""A shorter arrow would be all head; and how far from the mark its head is."""
ARROW = "arrow"
"""The gid of arrows' lines."""
_ARROW = "#333333"


@dataclass(frozen=True)
class Strides:
    """What the figure shows: teachers that differ in their stride, single pass, the best students.

    Accuracies are means over `datasets`. `is_timed` tells whether everything has a latency of one
    device; else the cost is in GFLOPs. `paper` has the paper's numbers, if they are about the same.
    """

    teachers: list[Aggregate]
    pretrained: Aggregate
    students: list[Aggregate]
    datasets: list[str]
    is_timed: bool
    paper: list[Published]

    @property
    def shown(self) -> list[Aggregate]:
        """All that has a mark."""
        return [self.pretrained, *self.teachers, *self.students]

    @property
    def best(self) -> Aggregate:
        """The student that arrows are about."""
        return max(self.students, key=lambda each: each.miou or 0)

    @property
    def its_teacher(self) -> Aggregate | None:
        """The teacher of the best student, where it is shown; the best, if that is unknown."""
        possible = [each for each in self.teachers if agrees(each, self.best)]
        return max(possible, key=lambda each: each.miou or 0, default=None)

    def cost(self, aggregate: Aggregate) -> float:
        """Return the cost of one image: seconds, or GFLOPs where time was not measured."""
        if self.is_timed:
            return (aggregate.cost.latency_p50_ms or 0.0) / 1000
        return aggregate.cost.gflops or 0.0


def stride_stories(results: Results, aggregates: list[Aggregate]) -> list[Strides]:
    """Return what has enough strides for this figure, with a single pass and a student."""
    panels = summed_panels(results, aggregates)
    means = [each for each in over_panels(aggregates, panels) if each.cost.gflops]
    found = []
    for teachers in stride_series(means):
        related = [each for each in means if agrees(each, teachers[0], but=["stride_px"])]
        single = [each for each in related if each.method == "pretrained"]
        students = [each for each in related if each.method == "student"]
        if len(teachers) < LEAST_STRIDES or not single or not students:
            continue
        best = sorted(students, key=lambda each: -(each.miou or 0))[:MOST_STUDENTS]
        shown = [*single[:1], *teachers, *best]
        is_timed = all(each.cost.latency_p50_ms for each in shown) and of_one_device(shown)
        found.append(
            Strides(
                teachers=teachers,
                pretrained=single[0],
                students=[each for each in students if each in best],
                datasets=[panel.dataset for panel in panels],
                is_timed=is_timed,
                paper=numbers_behind(results, shown) if is_timed else [],
            )
        )
    return found


def stride_figure(strides: Strides, aggregates: Iterable[Aggregate]) -> Figure:
    """Draw the figure; all `aggregates` of the report decide the marks."""
    mark_of = marks(aggregates)
    figure = new_figure(COLUMN_IN, 2.7)
    axes = figure.subplots()
    x, y = _coordinates(strides, strides.shown)
    line = _coordinates(strides, strides.teachers)
    axes.plot(*line, color=DIVIDES.color, linewidth=0.9, alpha=0.55, zorder=2)
    for each, cost, miou in zip(strides.shown, x, y, strict=True):
        draw_points(axes, [cost], [miou], [mark_of[each.label]], sds=[each.sd])
    behind = _draw_paper(axes, strides, mark_of)
    every = np.concatenate([np.stack([x, y], axis=1), behind])
    scale(axes, every[:, 0], every[:, 1])
    axes.set_xlabel(_cost_title(strides))
    n = len(strides.datasets)
    axes.set_ylabel("mIoU (%)" if n == 1 else f"Mean mIoU over {n} data sets (%)")
    legend_above(figure, _legend(strides), columns=3)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # arrows and labels are placed for the current axes
    labels = [
        Label(each.label, (float(cost), float(miou)), mark_of[each.label].color)
        for each, cost, miou in zip(strides.shown, x, y, strict=True)
    ]
    arrows = _draw_arrows(axes, strides, every)
    radius_pt = 4.6 if strides.paper else 3.2
    write_labels(axes, [*arrows, *labels], every, radius_pt=radius_pt)
    return figure


def _coordinates(strides: Strides, shown: Iterable[Aggregate]) -> tuple[Floats, Floats]:
    pairs = [(strides.cost(each), 100 * (each.miou or 0)) for each in shown]
    return np.array([x for x, _ in pairs]), np.array([y for _, y in pairs])


def _cost_title(strides: Strides) -> str:
    cost = strides.pretrained.cost
    where = f" of {cost.image_h}×{cost.image_w} px" if cost.image_h and cost.image_w else ""
    if strides.is_timed:
        return f"Time of one image{where} (s)"
    return f"GFLOPs of one image{where} (time not measured)"


def _draw_paper(axes: Axes, strides: Strides, mark_of: dict[str, Mark]) -> Floats:
    """Draw the paper's numbers behind; return where they are, `(N, 2)`."""
    own = {
        (each.method, each.settings.get("stride_px")): mark_of[each.label] for each in strides.shown
    }
    values: dict[tuple[str, int | None], dict[str, float]] = {}
    for one in strides.paper:
        values.setdefault((one.method, one.stride_px), {})[one.quantity] = one.value
    pairs = [(at["seconds"], at["miou_percent"]) for at in values.values()]
    points = np.array(pairs, dtype=float).reshape(-1, 2)
    if not pairs:
        return points
    taught = points[[method == "teacher" for method, _ in values]]
    axes.plot(taught[:, 0], taught[:, 1], color=COLOR, linewidth=0.6, zorder=1.6)
    for key, (x, y) in zip(values, points, strict=True):
        draw_behind(axes, [x], [y], own.get(key, DIVIDES), "none")
    return points


def _legend(strides: Strides) -> dict[str, Line2D]:
    handles = {}
    for does_divide, mark, name in (
        (True, DIVIDES, "stride divides by patch"),
        (False, DOES_NOT_DIVIDE, "does not divide"),
    ):
        if any(each.divides_patch is does_divide for each in strides.teachers):
            handles[name] = handle(mark, "-", color=DIVIDES.color, linewidth=0.9)
    return handles | ({"paper": paper_handle()} if strides.paper else {})


def _draw_arrows(axes: Axes, strides: Strides, points: Floats) -> list[Label]:
    """Draw what the best student gains, over a single pass upwards, over its teacher to the left.

    Returns:
        What is to be written at each arrow: the measured difference, the measured ratio.
    """
    best, teacher = strides.best, strides.its_teacher
    (single_x, x), (single_y, y) = _coordinates(strides, [strides.pretrained, best])
    labels = []
    if _draw_arrow(axes, (single_x, single_y), (x, y)):
        at = _clearest(axes, (single_x, single_y), (x, y), points, aside_pt=(24, 0))
        labels.append(Label(f"{text.points((y - single_y) / 100)} mIoU", at, _ARROW))
    if teacher is not None:
        (far,), (teacher_y,) = _coordinates(strides, [teacher])
        if _draw_arrow(axes, (far, y), (x, y)):
            axes.plot([far, far], [y, teacher_y], ":", color=GREY, linewidth=0.8, zorder=1.8)
            at = _clearest(axes, (far, y), (x, y), points, aside_pt=(0, 8))
            labels.append(Label(_times(strides, far / x), at, _ARROW))
    return labels


def _clearest(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    points: Floats,
    *,
    aside_pt: tuple[float, float],
) -> tuple[float, float]:
    """Return the place in the middle part of an arrow beside which points are farthest."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    tail, head = axes.transData.transform([start, end])
    along = tail + np.linspace(0.3, 0.75, 10)[:, None] * (head - tail)
    beside = along + np.array(aside_pt) * figure.dpi / 72
    apart = np.linalg.norm(beside[:, None] - axes.transData.transform(points), axis=-1).min(1)
    x, y = axes.transData.inverted().transform(along[int(np.argmax(apart))])
    return float(x), float(y)


def _draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> bool:
    """Draw an arrow to a mark, to the left or upright, if there is room for one."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    point_px = figure.dpi / 72
    tail, mark = axes.transData.transform([start, end])
    way = mark - tail
    length = float(np.linalg.norm(way))
    if length < LEAST_ARROW_PT * point_px:
        return False
    (x, y) = axes.transData.inverted().transform(mark - way / length * (CLEAR_PT * point_px))
    is_level = abs(way[0]) > abs(way[1])
    head = ("<" if way[0] < 0 else ">") if is_level else ("v" if way[1] < 0 else "^")
    axes.plot([start[0], x], [start[1], y], color=_ARROW, linewidth=0.9, zorder=3, gid=ARROW)
    axes.plot([x], [y], color=_ARROW, marker=head, markersize=3.2, markeredgewidth=0, zorder=5)
    return True


def _times(strides: Strides, ratio: float) -> str:
    """Write by how much a student is cheaper than its teacher, or dearer."""
    factor = max(ratio, 1 / ratio)
    written = f"{factor:.0f}" if factor >= 9.95 else f"{factor:.1f}"
    more, less = ("slower", "faster") if strides.is_timed else ("more GFLOPs", "fewer GFLOPs")
    return f"{written}× {less if ratio >= 1 else more}"
