"""The points of the chart that a reader explores: accuracy, every cost, and their conditions."""

from spar_bench.report.aggregates import Aggregate, stride_series
from spar_bench.report.page import Chart, ChartAxis, Point, Source
from spar_bench.report.style import STUDENTS, Mark, marks
from spar_bench.report.tables import METHOD_NAMES
from spar_bench.results import Results

_ALWAYS = ("protocol", "type", "image")
AXES = [
    ChartAxis("gflops", "GFLOPs per image (1 MAC = 2 FLOPs)", _ALWAYS),
    ChartAxis("latency_p50_ms", "Median latency per image (ms)", (*_ALWAYS, "device", "timing")),
    ChartAxis("params_m", "Parameters (M)", ("protocol", "type")),
    ChartAxis("peak_mib", "Peak memory (MiB)", (*_ALWAYS, "device")),
    ChartAxis(
        "total_gflops", "Training GFLOPs with targets (1 MAC = 2 FLOPs)", ("protocol", "type")
    ),
]
_TEACHERS = {
    True: "sliding window, stride divides by patch",
    False: "sliding window, stride does not divide by patch",
    None: "sliding window",
}


def chart_of(results: Results, aggregates: list[Aggregate]) -> Chart | None:
    """Return the chart of all aggregates with an accuracy and a cost, None if there is none."""
    mark_of, series_of = marks(aggregates), _series(aggregates)
    points = [
        _point(results, each, mark_of[each.label], series=series_of[each.label], line=line)
        for each, line in _lines(aggregates)
        if each.miou is not None
    ]
    points = [point for point in points if point.costs]
    axes = [axis for axis in AXES if any(axis.column in point.costs for point in points)]
    return Chart("Accuracy against cost", axes, points) if points else None


def _lines(aggregates: list[Aggregate]) -> list[tuple[Aggregate, int | None]]:
    """Return aggregates with the number of the line that joins their strides, if one does."""
    found: list[tuple[Aggregate, int | None]] = []
    lines = [series for series in stride_series(aggregates) if len(series) > 1]
    for number, series in enumerate(lines):
        found += [(each, number) for each in series]
    joined = {id(each) for each, _ in found}
    return [*found, *((each, None) for each in aggregates if id(each) not in joined)]


def _point(
    results: Results, aggregate: Aggregate, mark: Mark, *, series: str, line: int | None
) -> Point:
    panel = aggregate.panel
    costs = {axis.column: _cost(aggregate, axis.column) for axis in AXES}
    assert aggregate.miou is not None, "only what has an accuracy is a point"
    return Point(
        name=aggregate.marked_name,
        method=METHOD_NAMES.get(aggregate.method, aggregate.method),
        dataset=panel.dataset,
        panel=", ".join([panel.dataset, panel.title]),
        series=series,
        line=line,
        color=mark.color,
        marker=mark.marker,
        miou=aggregate.miou,
        sd=aggregate.sd,
        n=len(aggregate.mious),
        costs={name: value for name, value in costs.items() if value is not None},
        conditions=_conditions(results, aggregate),
        source=Source("miou", aggregate.rows),
    )


def _series(aggregates: list[Aggregate]) -> dict[str, str]:
    """Return entries of the legend by label: students have one each if figures tell them apart."""
    by_label = {each.label: each for each in aggregates}
    n_students = sum(each.method == "student" for each in by_label.values())
    names = {"pretrained": "single pass"}
    if n_students > len(STUDENTS):
        names["student"] = "SPAR"
    return {
        label: _TEACHERS[each.divides_patch]
        if each.method == "teacher"
        else names.get(each.method, label)
        for label, each in by_label.items()
    }


def _cost(aggregate: Aggregate, column: str) -> float | None:
    """Return what an aggregate costs to read an image, or took to be trained."""
    value: float | None = getattr(aggregate.cost, column, None)
    return aggregate.training.total_gflops if column == "total_gflops" else value


def _conditions(results: Results, aggregate: Aggregate) -> dict[str, str]:
    """Return under which conditions the numbers of an aggregate hold, by what they are."""
    row, cost = results.rows[aggregate.cost_row], aggregate.cost
    return {
        "protocol": row.protocol,
        "type": row.dtype,
        "image": f"{cost.image_h}×{cost.image_w} px",
        "device": cost.device or "unknown",
        "timing": "loaded machine" if cost.latency_note else "quiet machine",
    }
