"""The data files of a report: results, costs and differences by column."""

import json
from collections.abc import Iterable
from typing import Any

from spar_bench.report.aggregates import SWEPT_COLUMNS
from spar_bench.report.differences import Comparison
from spar_bench.report.names import backbone_name, trained_part
from spar_bench.report.page import Data
from spar_bench.results import COLUMNS, COST_COLUMNS, SIZES_COLUMNS, Results, Row

DIFFERENCE_COLUMNS = [
    "dataset", "eval_short_side_px", "swept", "a", "b", "difference", "low_over_images",
    "high_over_images", "n_images", "low_over_seeds", "high_over_seeds", "n_seeds",
]  # fmt: skip
"""The columns of differences.csv: mIoU of `a` minus that of `b`, a fraction, and two intervals.

Each has its 95 % limits; those over seeds are empty with fewer than two.
"""


def results_data(results: Results) -> Data:
    """Return one line per row of `results`.

    A swept key without a column gets its own, as does each value that a probe found.
    """
    keys = dict.fromkeys(key for row in results.rows for key in row.swept)
    extra = [key for key in keys if key not in SWEPT_COLUMNS]
    probed = list(dict.fromkeys(key for row in results.rows for key in row.probed))
    return Data(
        "results.csv",
        "one line per trial, method, data set and resolution; mIoU as a fraction",
        [*COLUMNS, *extra, *probed],
        [
            _columns(row)
            | {key: _cell(row.swept.get(key)) for key in extra}
            | {key: _cell(row.probed.get(key)) for key in probed}
            for row in results.rows
        ],
    )


def costs_data(results: Results) -> Data:
    """Return one line per method, data set and image size."""
    lines = []
    for row in results.costs:
        values = {**vars(row), **vars(row.cost), "backbone": backbone_name(row)}
        lines.append({name: values[name] for name in COST_COLUMNS})
    return Data(
        "costs.csv",
        "cost of each method on further image sizes, with a data set's classes and thresholds",
        COST_COLUMNS,
        lines,
    )


def sizes_data(results: Results) -> Data:
    """Return one line per method, data set and resolution whose images' sizes were asked for."""
    lines = []
    for row in results.sizes:
        values = {**vars(row), **vars(row.cost), **vars(row.over), "backbone": backbone_name(row)}
        lines.append({name: values[name] for name in SIZES_COLUMNS})
    return Data(
        "sizes.csv",
        "cost of each method over the images of each data set, each at its own size",
        SIZES_COLUMNS,
        lines,
    )


def differences_data(comparisons: Iterable[Comparison]) -> Data:
    """Return one line per comparison."""
    lines = []
    for each in comparisons:
        images, seeds = each.over_images, each.over_seeds
        over_seeds = (None, None) if seeds is None else (seeds.low, seeds.high)
        lines.append(
            [
                *each.a.panel, each.swept or None, *each.names, images.value, images.low,
                images.high, each.n_images, *over_seeds, each.n_seeds or None,
            ]
        )  # fmt: skip
    return Data(
        "differences.csv",
        "paired differences, with 95 % intervals over images (bootstrap) and over seeds (t)",
        DIFFERENCE_COLUMNS,
        [dict(zip(DIFFERENCE_COLUMNS, line, strict=True)) for line in lines],
    )


def _columns(row: Row) -> dict[str, object]:
    values = {
        **vars(row),
        **vars(row.cost),
        **vars(row.training),
        "backbone": backbone_name(row),
        "trainable": trained_part(row),
    }
    if row.train_short_side_px is not None:
        values["train_short_side_px"] = "-".join(map(str, row.train_short_side_px))
    return {name: values[name] for name in COLUMNS}


def _cell(value: Any) -> Any:
    """Return a swept value as one cell: lists and tables as JSON."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value
