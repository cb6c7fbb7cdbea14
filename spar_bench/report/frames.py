"""Tidy data frames of a sweep: results, costs, and paired differences between arms."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pandas as pd

from spar_bench.accuracy import paired_difference
from spar_bench.backbones import RANDOM
from spar_bench.report.arms import SWEPT_COLUMNS, Arm, agrees, panels_of, stride_series
from spar_bench.results import COLUMNS, COST_COLUMNS, Results, Row

_INTEGERS = [
    "seed", "window_px", "stride_px", "eval_short_side_px", "image_h", "image_w", "n_images",
    "n_windows",
]  # fmt: skip
_NUMBERS = [
    "miou", "gflops", "latency_p10_ms", "latency_p50_ms", "latency_p90_ms", "encoder_p50_ms",
    "peak_mib", "params_m",
]  # fmt: skip
DIFFERENCE_COLUMNS = [
    "dataset", "eval_short_side_px", "a", "b", "difference", "low", "high", "n_images",
]  # fmt: skip
"""The columns of differences.csv: mIoU of `a` minus that of `b`, a fraction, and 95 % limits."""


def results_frame(results: Results) -> pd.DataFrame:
    """Return one line per row of `results`; a swept key without a column gets its own."""
    keys = dict.fromkeys(key for row in results.rows for key in row.swept)
    extra = [key for key in keys if key not in SWEPT_COLUMNS]
    lines = [
        _columns(row) | {key: _cell(row.swept.get(key)) for key in extra} for row in results.rows
    ]
    return _typed(lines, [*COLUMNS, *extra])


def costs_frame(results: Results) -> pd.DataFrame:
    """Return one line per method and image size."""
    return _typed(results.costs, COST_COLUMNS)


def differences_frame(results: Results, arms: list[Arm]) -> pd.DataFrame:
    """Return paired bootstrap differences over images, one line per possible comparison."""
    lines = []
    for a, b in _comparisons(arms):
        sides = [
            [results.counts[key] for key in arm.evaluations if key in results.counts]
            for arm in (a, b)
        ]
        if not all(sides):
            continue  # a table shows why: the arm failed, or its counts were not kept
        difference = paired_difference(*sides)
        figures = (difference.value, difference.low, difference.high, sides[0][0].n_images)
        lines.append(
            dict(zip(DIFFERENCE_COLUMNS, (*a.panel, _name(a), _name(b), *figures), strict=True))
        )
    return pd.DataFrame(lines, columns=DIFFERENCE_COLUMNS)


def _name(arm: Arm) -> str:
    """Name an arm and mark random weights, since its name may lack the backbone."""
    is_said = RANDOM in arm.name or not str(arm.settings["backbone"]).endswith(RANDOM)
    return arm.name if is_said else arm.name + RANDOM


def _comparisons(arms: list[Arm]) -> Iterator[tuple[Arm, Arm]]:
    """Yield the pairs of interest, data set by data set.

    Single pass against the coarsest stride, every finer stride against the coarsest, each stride
    against the next finer (and so the next coarser), students against single pass and teacher.
    """
    for panel in panels_of(arms):
        here = [arm for arm in arms if arm.panel == panel]
        for series in stride_series(here):
            coarsest = series[0]
            yield from ((coarsest, arm) for arm in here if _is(arm, "pretrained", coarsest))
            yield from ((finer, coarsest) for finer in series[1:])
            yield from pairwise(series[1:])
        for student in (arm for arm in here if arm.method == "student"):
            yield from ((student, arm) for arm in here if _is(arm, "pretrained", student))
            yield from ((student, arm) for arm in here if _is(arm, "teacher", student))


def _is(arm: Arm, method: str, of: Arm) -> bool:
    return arm.method == method and agrees(arm, of)


def _columns(row: Row) -> dict[str, Any]:
    values = {**vars(row), **vars(row.cost)}
    return {name: values[name] for name in COLUMNS}


def _cell(value: Any) -> Any:
    """Return a swept value as one cell: lists and tables as JSON."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _typed(lines: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """Make a frame with integer counts even if some are missing: pandas would write `12.0`."""
    frame = pd.DataFrame(lines, columns=columns, dtype=object)
    types = dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_NUMBERS, "float64")
    return frame.astype({name: kind for name, kind in types.items() if name in columns})
