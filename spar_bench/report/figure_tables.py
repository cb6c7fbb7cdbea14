"""The numbers that figures show, as tables."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spar_bench.report import text
from spar_bench.report.aggregates import Aggregate, panels_of
from spar_bench.report.columns import MIOU
from spar_bench.report.names import value_text
from spar_bench.report.page import Cell, Table
from spar_bench.report.series import Axis
from spar_bench.report.tradeoff import CostAxis


def cost_numbers(aggregates: list[Aggregate], axis: CostAxis) -> Table:
    """Return accuracy and cost of each point of a figure."""
    title = axis.title.format(where="")
    rows = [
        (each, Cell(text.significant(cost), value=cost))
        for each in aggregates
        if each.miou is not None and (cost := axis.value(each)) is not None
    ]
    return _table(f"Accuracy against {title}", title, rows)


def axis_numbers(aggregates: list[Aggregate], axis: Axis) -> Table:
    """Return the accuracy of each point of a figure along what was swept."""
    rows = []
    for each in aggregates:
        if each.miou is not None and axis.moves(each):
            at = axis.of(each)
            rows.append((each, Cell(value_text(at), value=at if axis.is_numeric else None)))
    return _table(f"Accuracy along {axis.title}", axis.title, rows)


def class_numbers(ious: Mapping[str, NDArray[np.float64]], classes: list[str]) -> Table:
    """Return the IoU of each class in percent, the mean over seeds `(n, K)`, by name."""
    means = [seeds.mean(axis=0) for seeds in ious.values()]
    rows = [
        [Cell(name), *(_iou_cell(float(mean[number])) for mean in means)]
        for number, name in enumerate(classes)
    ]
    headers = ["Class", *ious]
    return Table("IoU of each class (%)", [("", len(headers))], headers, rows, n_text=1)


def _table(caption: str, header: str, rows: list[tuple[Aggregate, Cell]]) -> Table:
    """Lay out one row for each aggregate, with its panel if there are several."""
    several = len(panels_of(each for each, _ in rows)) > 1
    cells = [
        [
            Cell(each.marked_name),
            *([Cell(", ".join([each.panel.dataset, each.panel.title]))] if several else []),
            at,
            MIOU.cell(each),
        ]
        for each, at in rows
    ]
    headers = ["Name", *(["Data set"] if several else []), header, MIOU.header]
    return Table(caption, [("", len(headers))], headers, cells, n_text=len(headers) - 2)


def _iou_cell(iou: float) -> Cell:
    return Cell("absent") if np.isnan(iou) else Cell(text.percent(iou), value=iou)
