"""The paper's main table: mIoU by backbone and method, on each data set and in the mean.

Only our numbers; how they compare with the paper's is told elsewhere (`comparing.py`).
"""

from collections.abc import Iterable

from spar_bench.report.aggregates import Aggregate, Panel
from spar_bench.report.columns import MIOU, NOT_PART, with_best
from spar_bench.report.means import over_panels, summed_panels
from spar_bench.report.page import Cell, Table
from spar_bench.results import Results

_METHODS = ["teacher", "pretrained", "student"]
NOTE = (
    "mIoU in percent; in bold the best of each column within a backbone; ± is one standard "
    "deviation (n - 1) over n seeds. The mean is over the data sets, and is there only where all "
    "have a number."
)

_Line = dict[Panel, Aggregate]
"""The aggregates of one method with its settings."""


def main_table(results: Results, aggregates: Iterable[Aggregate]) -> Table | None:
    """Return the table, for a sweep on several data sets or one that the paper's is named in.

    There is none where a data set has several resolutions, of which nothing says which is meant.
    """
    aggregates = list(aggregates)
    panels = summed_panels(results, aggregates)
    if not panels or (len(panels) == 1 and results.reproduces != "main_table"):
        return None
    lines: dict[object, _Line] = {}
    for each in aggregates:
        if each.panel in panels:
            lines.setdefault(each.key, {})[each.panel] = each
    means = {each.key: each for each in over_panels(aggregates, panels)}
    by_backbone: dict[object, list[_Line]] = {}
    for line in lines.values():
        by_backbone.setdefault(_first(line).settings["backbone"], []).append(line)
    rows = []
    for backbone, own in by_backbone.items():
        ordered = _in_order(own)
        columns = [_marked([line.get(panel) for line in ordered]) for panel in panels]
        columns.append(_marked([means.get(_first(line).key) for line in ordered]))
        for number, line in enumerate(ordered):
            cells = [column[number] for column in columns]
            rows.append([Cell(str(backbone)), Cell(_name(_first(line))), *cells])
    # Not "Method": a row is a method with its settings, which no other table's methods are.
    headers = ["Backbone", "Row", *(panel.dataset for panel in panels), "Mean"]
    return Table("Main table: mIoU (%)", [("", len(headers))], headers, rows, n_text=2)


def _first(line: _Line) -> Aggregate:
    return next(iter(line.values()))


def _in_order(lines: list[_Line]) -> list[_Line]:
    """Order lines as the paper does: by refiner, none first; then teacher, single pass, student."""
    refiners = list(dict.fromkeys(_refiner(line) for line in lines))
    refiners.sort(key=lambda name: name != "none")

    def place(line: _Line) -> tuple[int, int]:
        return refiners.index(_refiner(line)), _METHODS.index(_first(line).method)

    return sorted(lines, key=place)


def _refiner(line: _Line) -> str:
    return str(_first(line).settings["refiner"])


def _name(aggregate: Aggregate) -> str:
    """Return what a row is called: its method, what distinguishes it, and its refiner."""
    name = aggregate.label_without("backbone", "refiner")
    if aggregate.method == "teacher" and name != "sliding window":
        name = f"sliding window, {name}"
    refiner = str(aggregate.settings["refiner"])
    return name if refiner == "none" else f"{name} + {refiner}"


def _marked(column: list[Aggregate | None]) -> list[Cell]:
    """Return the cells of a column within a backbone, the best in bold."""
    cells = [NOT_PART if each is None or _is_not_run(each) else MIOU.cell(each) for each in column]
    return with_best(cells, [None if each is None else each.miou for each in column])


def _is_not_run(aggregate: Aggregate) -> bool:
    return aggregate.miou is None and set(aggregate.unfinished) <= {"skipped", "not_measured"}
