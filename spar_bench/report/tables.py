"""Lay results out as tables: a row per aggregate, accuracy and cost for each panel."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from spar_bench.report import text
from spar_bench.report.aggregates import Aggregate, Panel, of_one_device, panels_of
from spar_bench.report.columns import (
    GFLOPS,
    LATENCY,
    MIOU,
    NOT_PART,
    NOTED,
    OF_DEVICE,
    READING,
    TRAINING,
    Column,
    with_best,
)
from spar_bench.report.means import over_panels
from spar_bench.report.names import value_text
from spar_bench.report.page import Cell, Table

_NOTE = (
    "mIoU in percent, the best of each mIoU column in bold; ± is one standard deviation (n - 1) "
    "over n seeds. Costs are for one image{sizes}; 1 MAC = 2 FLOPs; latency is the median, then "
    "the 10th to 90th percentile. A student's window and stride are its teacher's. A protocol is "
    "all that affects mIoU besides model, inference and images; its name is a digest of it."
)
_TRAINING_NOTE = (
    "Training is the mean over seeds. A student costs its targets, which are the teacher's part "
    "and count once for all students of one teacher if they are kept, plus its own passes and "
    "the products of its optimiser; time includes targets only if they are not kept."
)
_HEADERS = {
    "window_px": "Window (px)",
    "stride_px": "Stride (px)",
    "trainable": "Trained",
    "train_short_side_px": "Trained at (px)",
    "dtype": "Type",
    "dataset": "Data set",
    "eval_short_side_px": "Short side (px)",
}
METHOD_NAMES = {"pretrained": "single pass", "teacher": "sliding window", "student": "SPAR"}


def result_tables(aggregates: list[Aggregate], asked: Sequence[Column] = ()) -> list[Table]:
    """Return one table of accuracy and cost for one panel; for several, one table of each.

    What was not measured at all has no column; what all lines have alike is said in the caption.
    Columns that were `asked` for are there in any case, in their order.
    """
    known = [MIOU, *_costs(aggregates), *TRAINING]
    columns = list(asked) or [one for one in known if not one.is_empty(aggregates)]
    if len(panels_of(aggregates)) == 1:
        return [_table(aggregates, "Accuracy and cost", columns, keeps_all=bool(asked))]
    of_panels = [column for column in columns if column not in TRAINING]
    training = [column for column in columns if column in TRAINING]
    tables = [_table(aggregates, one.quantity.capitalize(), [one]) for one in of_panels]
    has_students = any(each.method == "student" for each in aggregates)
    return [
        *tables,
        *([_training_table(aggregates, training)] if training and has_students else []),
    ]


def _training_table(aggregates: list[Aggregate], columns: list[Column]) -> Table:
    """Return a table of what students took, which does not depend on what they are tested on."""
    students = [each for each in aggregates if each.method == "student"]
    of_one_panel = {each.key: each for each in students}.values()
    columns = [replace(column, group="") for column in columns]
    return _table(list(of_one_panel), "Training", columns, is_of_panels=False)


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
    columns = [*_costs(aggregates), *TRAINING]
    missing = [column.quantity for column in columns if column.is_unmeasured(aggregates)]
    unmeasured = ", ".join(dict.fromkeys(missing))
    unmeasured_line = [f"Not measured: {unmeasured}."] if missing else []
    training = [] if all(one.is_empty(aggregates) for one in TRAINING) else [_TRAINING_NOTE]
    return [_NOTE.format(sizes=where), *training, *unmeasured_line, *_latency_lines(aggregates)]


def _latency_lines(aggregates: list[Aggregate]) -> list[str]:
    """Return what makes latencies differ from those of a quiet machine, or from each other."""
    costs = [each.cost for each in aggregates if each.cost.latency_p50_ms is not None]
    n_noted = sum(bool(cost.latency_note) for cost in costs)
    batches = sorted({cost.window_batch for cost in costs if cost.window_batch is not None})
    noted = (
        f"{NOTED} Latency as on a loaded machine, for {n_noted} of {len(costs)} rows: "
        "latency_note in results.csv says why; `spar-bench sweep --retime` times them again."
    )
    mixed = (
        f"Memory ran out while timing: windows were encoded {' or '.join(map(str, batches))} at "
        "once, as window_batch in results.csv says."
    )
    return [*([noted] if n_noted else []), *([mixed] if len(batches) > 1 else [])]


Line = dict[Panel, Aggregate]
"""The aggregates of one method and its settings."""


@dataclass(frozen=True)
class _Slot:
    """A column as it stands in a table: the header above it, and a cell for each line."""

    group: str
    column: Column
    cells: list[Cell]

    @property
    def constant(self) -> str | None:
        """The number that all lines have, if several have one at all."""
        texts = [cell.text for cell in self.cells if cell != NOT_PART]
        is_number = len(set(texts)) == 1 < len(texts) and texts[0][0].isdigit()
        return texts[0] if is_number and self.column is not MIOU else None


def _table(
    aggregates: list[Aggregate],
    subject: str,
    columns: list[Column],
    *,
    is_of_panels: bool = True,
    keeps_all: bool = False,
) -> Table:
    """Lay out one row per method and settings, and `columns` for each panel."""
    panels = panels_of(aggregates) if is_of_panels else panels_of(aggregates)[:1]
    settings, constant = _settings_columns(aggregates)
    shared, titles = _panel_titles(panels)
    lines: dict[tuple[Any, ...], Line] = {}
    for each in aggregates:
        lines.setdefault(each.key, {})[each.panel if is_of_panels else panels[0]] = each
    slots = [
        _slot(column, panel, column.group or title, list(lines.values()))
        for panel, title in zip(panels, titles, strict=True)
        for column in columns
    ]
    slots += _mean_slots(columns, panels, list(lines.values()))
    if len(panels) == 1 and not keeps_all:
        constant += [slot.column.said(one) for slot in slots if (one := slot.constant) is not None]
        slots = [slot for slot in slots if slot.constant is None]
    firsts = [next(iter(line.values())) for line in lines.values()]
    headers = ["Method", *(header_of(name) for name in settings)]
    texts = [_texts(each, settings) for each in firsts]
    stated = [*(shared if is_of_panels else []), *constant]
    return Table(
        caption=": ".join(filter(None, [subject, ", ".join(stated)])),
        groups=[("", len(headers)), *_groups(slots)],
        headers=[*headers, *(slot.column.header for slot in slots)],
        rows=[[*row, *(slot.cells[at] for slot in slots)] for at, row in enumerate(texts)],
        n_text=len(headers),
        title=": ".join(filter(None, [subject, ", ".join(shared if is_of_panels else [])])),
        legend=_legend(slots, aggregates),
    )


def _texts(aggregate: Aggregate, settings: list[str]) -> list[Cell]:
    """Return the first cells of a line: its method, and the settings that differ."""
    method = Cell(METHOD_NAMES.get(aggregate.method, aggregate.method))
    return [method, *(_setting_cell(aggregate, name) for name in settings)]


def _slot(column: Column, panel: Panel, group: str, lines: list[Line]) -> _Slot:
    cells = [column.cell(line[panel]) if panel in line else NOT_PART for line in lines]
    if column is MIOU:
        cells = with_best(cells, [line[panel].miou for line in lines if panel in line])
    if column in OF_DEVICE and not of_one_device(each for line in lines for each in line.values()):
        cells = [
            replace(cell, text=f"{cell.text} ({line[panel].device})") if cell.source else cell
            for cell, line in zip(cells, lines, strict=True)
        ]
    return _Slot(group, column, cells)


def _mean_slots(columns: list[Column], panels: list[Panel], lines: list[Line]) -> list[_Slot]:
    """Return the mean accuracy over several data sets: at their resolution, or at each of them."""
    datasets = list(dict.fromkeys(panel.dataset for panel in panels))
    if MIOU not in columns or len(datasets) < 2:
        return []
    of = {name: [panel for panel in panels if panel.dataset == name] for name in datasets}
    if all(len(own) == 1 for own in of.values()):
        return [_mean_slot("Mean", panels, lines)]
    sides = [{panel.eval_short_side_px for panel in own} for own in of.values()]
    return [
        _mean_slot(f"Mean, short side {side} px", alike, lines)
        for side in sorted(set.intersection(*sides))
        for alike in [[panel for panel in panels if panel.eval_short_side_px == side]]
    ]


def _mean_slot(title: str, panels: list[Panel], lines: list[Line]) -> _Slot:
    means = [next(iter(over_panels(line.values(), panels)), None) for line in lines]
    cells = [NOT_PART if mean is None else MIOU.cell(mean) for mean in means]
    mious = [None if mean is None else mean.miou for mean in means]
    return _Slot(title, MIOU, with_best(cells, mious))


def _groups(slots: list[_Slot]) -> list[tuple[str, int]]:
    """Return the header above each run of slots that share one, and how many it is above."""
    runs = itertools.groupby(slots, lambda slot: slot.group)
    return [(group, len(list(run))) for group, run in runs]


_USUAL = {"classifier": "text"}
"""What a caption leaves unsaid."""


def _legend(slots: list[_Slot], aggregates: list[Aggregate]) -> str:
    """Return what a printed caption says of the numbers, without how many seeds they are of."""
    quantities = {slot.column.key for slot in slots}
    sizes = {(each.cost.image_h, each.cost.image_w) for each in aggregates}
    (height, width), *others = sizes
    of_size = f" of {height}×{width} px" if height and not others else ""
    parts = ["mIoU in percent, best in bold"] if "miou" in quantities else []
    if quantities & {one.key for one in READING}:
        parts.append(f"costs for one image{of_size}")
    if quantities & {"gflops", "teach_gflops", "train_gflops"}:
        parts.append("1 MAC = 2 FLOPs")
    if "latency" in quantities:
        parts.append("median latency")
    if any(NOTED in cell.text for slot in slots for cell in slot.cells):
        parts.append(f"{NOTED} as on a loaded machine")
    legend = "; ".join(parts)
    starts_with_name = legend.startswith("mIoU")
    return f"{legend if starts_with_name else text.capitalised(legend)}." if parts else ""


def _settings_columns(aggregates: list[Aggregate]) -> tuple[list[str], list[str]]:
    """Return the settings that differ, as columns, and those that do not, as text."""
    names = dict.fromkeys(name for each in aggregates for name in each.settings)
    columns, constant = [], []
    for name in names:
        found = [each.settings.get(name) for each in aggregates]
        values = {str(value): value for value in found if value is not None}
        if len(values) > 1:
            columns.append(name)
        elif values and _USUAL.get(name) not in values and list(values) != ["none"]:
            name, *unit = header_of(name).lower().removesuffix(")").split(" (")
            constant.append(" ".join([name, value_text(*values.values()), *unit]))
    return columns, constant


def _panel_titles(panels: list[Panel]) -> tuple[list[str], list[str]]:
    """Return what all panels share, for the caption, and what distinguishes each."""
    datasets = [panel.dataset for panel in panels]
    sizes = [panel.title for panel in panels]
    shared = [part[0] for part in (datasets, sizes) if len(set(part)) == 1]
    apart = [part for part in (datasets, sizes) if len(set(part)) > 1]
    return shared, [", ".join(parts) for parts in zip(*apart, strict=True)] or [""]


def header_of(name: str) -> str:
    """Return the header of a setting's column."""
    return _HEADERS.get(name, name.split(".")[-1].replace("_", " ").capitalize())


def _setting_cell(aggregate: Aggregate, name: str) -> Cell:
    value = aggregate.settings.get(name)
    if value is None:
        return NOT_PART
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(value_text(value), value=value if is_number else None)


def _costs(aggregates: list[Aggregate]) -> list[Column]:
    """Return the columns of costs that tables of these aggregates have room for."""
    return READING if len(panels_of(aggregates)) == 1 else [GFLOPS, LATENCY]
