"""Lay results out as tables: a row per aggregate, accuracy and cost for each panel."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from spar_bench.report import text
from spar_bench.report.aggregates import Aggregate, Panel, panels_of
from spar_bench.report.names import value_text
from spar_bench.report.page import Cell, Table

_NOTE = (
    "mIoU in percent, the best of each mIoU column in bold; ± is one standard deviation (n - 1) "
    "over n seeds. Costs are for one image{sizes}; 1 MAC = 2 FLOPs; latency is the median, then "
    "the 10th to 90th percentile. A student's window and stride are its teacher's. A protocol is "
    "all that affects mIoU besides model, inference and images; its name is a digest of it."
)
_HEADERS = {
    "window_px": "Window (px)",
    "stride_px": "Stride (px)",
    "trainable": "Trained",
    "train_short_side_px": "Trained at (px)",
    "dtype": "Type",
}
_METHODS = {"pretrained": "single pass", "teacher": "sliding window", "student": "SPAR"}
NOT_PART = Cell("–")
_NOT_MEASURED = Cell("not measured")
_NOTED = "†"
"""Marks a latency that does not stand for a quiet machine."""


@dataclass(frozen=True)
class Column:
    """A quantity and its header, and the function that gives an aggregate's cell."""

    quantity: str
    header: str
    cell: Callable[[Aggregate], Cell]


def result_tables(aggregates: list[Aggregate]) -> list[Table]:
    """Return one table of accuracy and cost for one panel; for several, one table of each.

    What was not measured at all has no column.
    """
    costs = [column for column in _costs(aggregates) if not _is_unmeasured(column, aggregates)]
    if len(panels_of(aggregates)) == 1:
        return [_table(aggregates, "Accuracy and cost", [MIOU, *costs])]
    return [_table(aggregates, column.quantity.capitalize(), [column]) for column in (MIOU, *costs)]


def notes(aggregates: list[Aggregate]) -> list[str]:
    """Return what a reader of the tables must know: sizes of images, and what is not measured."""
    sizes: dict[str, list[str]] = {}
    for panel in panels_of(aggregates):
        costs = [each.cost for each in aggregates if each.panel == panel]
        known = dict.fromkeys((cost.image_h, cost.image_w) for cost in costs if cost.image_h)
        for height, width in known:
            place = f"{panel.dataset} at {panel.eval_short_side_px} px"
            sizes.setdefault(f"{height}×{width} px", []).append(place)
    by_panel = ", ".join(f"{size} for {' and '.join(places)}" for size, places in sizes.items())
    where = f" ({by_panel})" if len(sizes) > 1 else "".join(f" of {size}" for size in sizes)
    missing = [c.quantity for c in _costs(aggregates) if _is_unmeasured(c, aggregates)]
    unmeasured = ", ".join(dict.fromkeys(missing))
    unmeasured_line = [f"Not measured: {unmeasured}."] if missing else []
    return [_NOTE.format(sizes=where), *unmeasured_line, *_latency_lines(aggregates)]


def _latency_lines(aggregates: list[Aggregate]) -> list[str]:
    """Return what makes latencies differ from those of a quiet machine, or from each other."""
    costs = [each.cost for each in aggregates if each.cost.latency_p50_ms is not None]
    n_noted = sum(bool(cost.latency_note) for cost in costs)
    batches = sorted({cost.window_batch for cost in costs if cost.window_batch is not None})
    noted = (
        f"{_NOTED} Latency as on a loaded machine, for {n_noted} of {len(costs)} rows: "
        "latency_note in results.csv says why; `spar-bench sweep --retime` times them again."
    )
    mixed = (
        f"Memory ran out while timing: windows were encoded {' or '.join(map(str, batches))} at "
        "once, as window_batch in results.csv says."
    )
    return [*([noted] if n_noted else []), *([mixed] if len(batches) > 1 else [])]


def _table(aggregates: list[Aggregate], subject: str, columns: list[Column]) -> Table:
    """Lay out one row per aggregate, and `columns` for each panel."""
    panels = panels_of(aggregates)
    settings, constant = _settings_columns(aggregates)
    shared, titles = _panel_titles(panels)
    constant = [*shared, *constant]
    found = {(each.key, each.panel): each for each in aggregates}
    best = {panel: _best(aggregates, panel) for panel in panels}
    rows = []
    for key, aggregate in {each.key: each for each in aggregates}.items():
        row = [Cell(_METHODS.get(aggregate.method, aggregate.method))]
        row += [_setting_cell(aggregate, name) for name in settings]
        for panel in panels:
            here = found.get((key, panel))
            for column in columns:
                cell = column.cell(here) if here else NOT_PART
                is_best = column is MIOU and cell.text == best[panel]
                row.append(replace(cell, is_best=is_best))
        rows.append(row)
    headers = ["Method", *(_HEADERS.get(name, _header(name)) for name in settings)]
    groups = [("", len(headers))]
    groups += [(title, len(columns)) for title in titles]
    return Table(
        caption=": ".join([subject, ", ".join(constant)]),
        groups=groups,
        headers=headers + [column.header for column in columns] * len(panels),
        rows=rows,
        n_text=len(headers),
    )


def _settings_columns(aggregates: list[Aggregate]) -> tuple[list[str], list[str]]:
    """Return the settings that differ, as columns, and those that do not, as text."""
    names = dict.fromkeys(name for each in aggregates for name in each.settings)
    columns, constant = [], []
    for name in names:
        found = [each.settings.get(name) for each in aggregates]
        values = {str(value): value for value in found if value is not None}
        if len(values) > 1 or name == "stride_px":
            columns.append(name)
        elif values and list(values) != ["none"]:
            name, *unit = _HEADERS.get(name, _header(name)).lower().removesuffix(")").split(" (")
            constant.append(" ".join([name, value_text(*values.values()), *unit]))
    return columns, constant


def _panel_titles(panels: list[Panel]) -> tuple[list[str], list[str]]:
    """Return what all panels share, for the caption, and what distinguishes each."""
    datasets = [panel.dataset for panel in panels]
    sizes = [panel.title for panel in panels]
    shared = [part[0] for part in (datasets, sizes) if len(set(part)) == 1]
    apart = [part for part in (datasets, sizes) if len(set(part)) > 1]
    return shared, [", ".join(parts) for parts in zip(*apart, strict=True)] or [""]


def _header(name: str) -> str:
    return name.split(".")[-1].replace("_", " ").capitalize()


def _setting_cell(aggregate: Aggregate, name: str) -> Cell:
    value = aggregate.settings.get(name)
    return NOT_PART if value is None else Cell(value_text(value))


def _best(aggregates: list[Aggregate], panel: Panel) -> str | None:
    mious = [each.miou for each in aggregates if each.panel == panel]
    return text.percent(max(known)) if (known := [m for m in mious if m is not None]) else None


def _miou_cell(aggregate: Aggregate) -> Cell:
    counts = Counter(aggregate.unfinished)
    if aggregate.miou is None:
        return Cell(" and ".join(status.replace("_", " ") for status in counts))
    note = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts.items())
    sd = None if aggregate.sd is None else text.percent(aggregate.sd)
    return Cell(text.percent(aggregate.miou), sd, len(aggregate.mious), note)


def _cost_column(
    quantity: str, header: str, name: str, write: Callable[[float], str] = text.significant
) -> Column:
    def cell(aggregate: Aggregate) -> Cell:
        value = getattr(aggregate.cost, name)
        return _absent(aggregate) if value is None else Cell(write(value))

    return Column(quantity, header, cell)


def _absent(aggregate: Aggregate) -> Cell:
    status = aggregate.cost.cost_status
    return _NOT_MEASURED if status == "finished" else Cell(status.replace("_", " "))


def _range_cell(aggregate: Aggregate) -> Cell:
    low, high = aggregate.cost.latency_p10_ms, aggregate.cost.latency_p90_ms
    if low is None or high is None:
        return _absent(aggregate)
    return Cell(f"{text.significant(low)}–{text.significant(high)}")


MIOU = Column("accuracy", "mIoU (%)", _miou_cell)
_GFLOPS = _cost_column("operations", "GFLOPs", "gflops")


def _latency_cell(aggregate: Aggregate) -> Cell:
    value = aggregate.cost.latency_p50_ms
    if value is None:
        return _absent(aggregate)
    return Cell(text.significant(value) + (_NOTED if aggregate.cost.latency_note else ""))


_LATENCY = Column("latency", "Latency (ms)", _latency_cell)
_COSTS = [
    _cost_column("windows", "Windows", "n_windows", str),
    _GFLOPS,
    _LATENCY,
    Column("latency", "p10–p90 (ms)", _range_cell),
    _cost_column("peak memory", "Peak (MiB)", "peak_mib"),
    _cost_column("parameters", "Parameters (M)", "params_m"),
]


def _costs(aggregates: list[Aggregate]) -> list[Column]:
    """Return the columns of costs that tables of these aggregates have room for."""
    return _COSTS if len(panels_of(aggregates)) == 1 else [_GFLOPS, _LATENCY]


def _is_unmeasured(column: Column, aggregates: list[Aggregate]) -> bool:
    return all(column.cell(each) == _NOT_MEASURED for each in aggregates)
