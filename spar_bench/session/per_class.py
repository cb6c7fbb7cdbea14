"""The per-class table of a sweep: intersection over union and pixels of each class."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from spar_bench.accuracy import class_iou
from spar_bench.evaluations import Evaluations
from spar_bench.results import Row

COLUMNS = ["trial", "method", "dataset", "eval_short_side_px", "class", "iou", "n_pixels"]
"""Columns of per_class.csv; `iou` is a fraction, empty for a class that does not occur."""


def per_class_csv(
    rows: Iterable[Row], evaluations: Evaluations, classes: Mapping[str, Sequence[str]]
) -> str:
    """Return the table as CSV; a row whose evaluation is not there has no lines.

    Args:
        rows: Rows, which name their evaluation under `stages["evaluate"]`.
        evaluations: Where their pixel counts are.
        classes: Class names by `Row.classes`.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        counts = evaluations.counts(row.stages["evaluate"]) if row.status == "finished" else None
        if counts is None:
            continue
        place = (row.trial, row.method, row.dataset, row.eval_short_side_px)
        columns = (classes[row.classes], class_iou(counts), counts.true.sum(0))
        for name, iou, n_pixels in zip(*columns, strict=True):
            table.writerow([*place, name, "" if np.isnan(iou) else f"{iou:.6f}", int(n_pixels)])
    return text.getvalue()
