"""The quantities that tables have columns for: accuracy, cost of reading, cost of training."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from spar_bench.errors import UnknownName
from spar_bench.report import text
from spar_bench.report.aggregates import Aggregate
from spar_bench.report.page import Cell, Source

NOT_PART = Cell("–")
NOT_MEASURED = Cell("not measured")
NOTED = "†"
"""Marks a latency that does not stand for a quiet machine."""


@dataclass(frozen=True)
class Column:
    """A quantity: its key, its name in a sentence, its header, and an aggregate's cell.

    `group` is the header above, of columns that belong together.
    """

    key: str
    quantity: str
    header: str
    cell: Callable[[Aggregate], Cell]
    group: str = ""

    def said(self, value: str) -> str:
        """Return the quantity and a value in words, as in a caption: `parameters 1.30 M`."""
        header, _, unit = self.header.removesuffix(")").partition(" (")
        unit = header if header == "GFLOPs" else unit
        share = header if header[0].islower() else ""  # p10–p90
        return " ".join(filter(None, [self.quantity, share, value, unit]))

    def is_unmeasured(self, aggregates: list[Aggregate]) -> bool:
        """Tell whether no aggregate has this quantity, though it could have been measured."""
        cells = [self.cell(each) for each in aggregates]
        return NOT_MEASURED in cells and all(cell in (NOT_MEASURED, NOT_PART) for cell in cells)

    def is_empty(self, aggregates: list[Aggregate]) -> bool:
        """Tell whether no aggregate has this quantity."""
        return all(self.cell(each) in (NOT_MEASURED, NOT_PART) for each in aggregates)


def _miou_cell(aggregate: Aggregate) -> Cell:
    counts = Counter(aggregate.unfinished)
    if aggregate.miou is None:
        return Cell(" and ".join(status.replace("_", " ") for status in counts))
    note = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts.items())
    return Cell(
        text.percent(aggregate.miou),
        aggregate.sd,
        len(aggregate.mious),
        note,
        value=aggregate.miou,
        source=Source("miou", aggregate.rows),
    )


def with_best(cells: Iterable[Cell], mious: Iterable[float | None]) -> list[Cell]:
    """Return cells of mIoU with those marked that show the best of `mious`, None where none is."""
    known = [miou for miou in mious if miou is not None]
    best = text.percent(max(known)) if known else None
    return [replace(cell, is_best=cell.text == best) for cell in cells]


def _cost_column(
    key: str,
    quantity: str,
    header: str,
    name: str,
    write: Callable[[float], str] = text.significant,
) -> Column:
    def cell(aggregate: Aggregate) -> Cell:
        value = getattr(aggregate.cost, name)
        return _absent(aggregate) if value is None else _cost_cell(aggregate, name, write(value))

    return Column(key, quantity, header, cell)


def _cost_cell(aggregate: Aggregate, name: str, written: str) -> Cell:
    """Return the cell of a cost that was measured, under its name in results.csv."""
    value = getattr(aggregate.cost, name)
    return Cell(written, value=value, source=Source(name, (aggregate.cost_row,)))


def _absent(aggregate: Aggregate) -> Cell:
    status = aggregate.cost.cost_status
    return NOT_MEASURED if status == "finished" else Cell(status.replace("_", " "))


def _latency_cell(aggregate: Aggregate) -> Cell:
    value = aggregate.cost.latency_p50_ms
    if value is None:
        return _absent(aggregate)
    written = text.significant(value) + (NOTED if aggregate.cost.latency_note else "")
    return _cost_cell(aggregate, "latency_p50_ms", written)


def _range_cell(aggregate: Aggregate) -> Cell:
    low, high = aggregate.cost.latency_p10_ms, aggregate.cost.latency_p90_ms
    if low is None or high is None:
        return _absent(aggregate)
    written = f"{text.significant(low)}–{text.significant(high)}"
    return _cost_cell(aggregate, "latency_p10_ms", written)


def _training_column(
    name: str, quantity: str, header: str, write: Callable[[float], str] = text.significant
) -> Column:
    def cell(aggregate: Aggregate) -> Cell:
        value = getattr(aggregate.training, name)
        if value is not None:
            return Cell(write(value), value=value, source=Source(name, aggregate.rows))
        was_trained_here = aggregate.training.epochs is not None
        return NOT_MEASURED if was_trained_here else NOT_PART

    return Column(name.removesuffix("_m"), quantity, header, cell, "Training")


MIOU = Column("miou", "accuracy", "mIoU (%)", _miou_cell)
GFLOPS = _cost_column("gflops", "operations", "GFLOPs", "gflops")
LATENCY = Column("latency", "latency", "Latency (ms)", _latency_cell)
_RANGE = Column("latency_range", "latency", "p10–p90 (ms)", _range_cell)
_PEAK = _cost_column("peak", "peak memory", "Peak (MiB)", "peak_mib")
OF_DEVICE = (LATENCY, _RANGE, _PEAK)
"""Those that are of a device, which cells name where there are several."""
READING = [
    _cost_column("windows", "windows", "Windows", "n_windows", str),
    GFLOPS,
    LATENCY,
    _RANGE,
    _PEAK,
    _cost_column("params", "parameters", "Parameters (M)", "params_m"),
]
"""What it costs to read an image."""
TRAINING = [
    _training_column("train_images", "training images", "Images", "{:.10g}".format),
    _training_column("epochs", "epochs", "Epochs", "{:.10g}".format),
    _training_column("trained_params_m", "trained parameters", "Weights (M)"),
    _training_column("teach_gflops", "operations of targets", "Targets (GFLOPs)"),
    _training_column("train_gflops", "operations of training", "Student (GFLOPs)"),
    _training_column("train_seconds", "training time", "Time (s)"),
]
"""What it cost to make a student."""

COLUMNS = {column.key: column for column in (MIOU, *READING, *TRAINING)}
"""All of them, by the key that a user chooses one by."""


def chosen(keys: Sequence[str]) -> list[Column]:
    """Return the columns of some keys, in their order.

    Raises:
        UnknownName: there is no such column.
    """
    for key in keys:
        if key not in COLUMNS:
            raise UnknownName.among("--columns", key, COLUMNS)
    return [COLUMNS[key] for key in dict.fromkeys(keys)]
