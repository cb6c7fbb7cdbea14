"""What MLflow shows of one trial: only names and values, without MLflow."""

import dataclasses
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from spar_bench.files import file_sha256
from spar_bench.results import Row, TrialRecord
from spar_bench.stage import digest

RUN_STATUS = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "blocked": "FAILED",
    "pruned": "KILLED",
    "skipped": "KILLED",
    "not_measured": "KILLED",
    "killed": "KILLED",
}
"""Maps our word for how a trial or sweep ended to MLflow's."""

HEADLINE_METHODS = ("student", "teacher", "pretrained")
"""A trial's headline metrics are of the first of these methods that it has."""

_COSTS = [
    "n_windows", "gflops", "latency_p10_ms", "latency_p50_ms", "latency_p90_ms", "encoder_p50_ms",
    "peak_mib", "params_m",
]  # fmt: skip
_LONGEST_NAME = 80  # of a group or data set; MLflow refuses a metric of more than 250 characters
_LONGEST_TEXT = 5000  # MLflow cuts a param at 6000 and a tag at 8000 characters


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One trial's run in MLflow.

    `metrics` are single values; `curve` holds (step, loss, milliseconds since the epoch). `digest`
    covers all of it and the artifacts' contents, but not when the trial ran.
    """

    params: dict[str, str]
    metrics: dict[str, float]
    curve: list[tuple[int, float, int]]
    curve_digest: str
    tags: dict[str, str]
    status: str
    digest: str

    @classmethod
    def of(cls, trial: TrialRecord) -> "Entry":
        """Read a trial's record."""
        params = {name: as_text(value) for name, value in trial.params.items()}
        metrics = _metrics(trial.rows)
        curve = [point for point in trial.curve if math.isfinite(point[1])]
        tags = {
            "spar.trial": trial.trial,
            "spar.group": trial.group,
            "spar.status": trial.status,
        }
        if trial.seed is not None:
            tags["spar.seed"] = str(trial.seed)
        if trial.rows:
            tags["spar.headline"] = _headline(trial.rows).method
        if trial.reason:
            tags["spar.reason"] = trial.reason[:_LONGEST_TEXT]
        contents = {name: file_sha256(path) for name, path in sorted(trial.artifacts.items())}
        return cls(
            params=params,
            metrics=metrics,
            curve=curve,
            curve_digest=digest(curve),
            tags=tags,
            status=RUN_STATUS[trial.status],
            digest=digest([params, metrics, curve, tags, contents, resolved(trial)]),
        )


def resolved(trial: TrialRecord) -> str:
    """Return the trial's settings and rows as JSON; unlike params, long ones are not cut."""
    document = {
        "trial": trial.trial,
        "group": trial.group,
        "seed": trial.seed,
        "settings": trial.params,
        "rows": [dataclasses.asdict(row) for row in trial.rows],
    }
    return json.dumps(document, indent=1, default=str)


def as_text(value: Any) -> str:
    """Return a setting as an MLflow param: text as it is, all else as JSON, cut if very long."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def aggregates(rows: Iterable[Row]) -> dict[str, float]:
    """Return each group's mean mIoU as metrics, with standard deviation for two or more seeds.

    A method that no seed can affect counts once, without a deviation.
    """
    values: defaultdict[str, dict[int | None, float]] = defaultdict(dict)
    for row in rows:
        if row.miou is not None and math.isfinite(row.miou):
            values[f"{_clean(row.group)}.{_row_name(row)}"][row.seed] = row.miou
    metrics: dict[str, float] = {}
    for name, by_seed in values.items():
        metrics[f"miou_mean/{name}"] = mean(by_seed.values())
        if len(by_seed) > 1:
            metrics[f"miou_sd/{name}"] = stdev(by_seed.values())
    return metrics


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of a folder's files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest({path.relative_to(folder).as_posix(): file_sha256(path) for path in files})


def _metrics(rows: list[Row]) -> dict[str, float]:
    """Return the headline metrics, then those of each row by method, data set and short side."""
    if not rows:
        return {}
    headline = _headline(rows)
    candidates: dict[str, Any] = {"miou": headline.miou}
    candidates |= {name: getattr(headline.cost, name) for name in _COSTS}
    for row in rows:
        candidates[f"miou/{_row_name(row)}"] = row.miou
        candidates[f"gflops/{_row_name(row)}"] = row.cost.gflops
        candidates[f"latency_p50_ms/{_row_name(row)}"] = row.cost.latency_p50_ms
    # MLflow reads infinity back as 1.8e308, and a NaN hides the run from its plots.
    return {
        name: float(value)
        for name, value in candidates.items()
        if value is not None and math.isfinite(value)
    }


def _headline(rows: list[Row]) -> Row:
    """Return the row that summarises a trial, on its first data set and resolution."""
    first = rows[0]
    alike = [
        row
        for row in rows
        if (row.dataset, row.eval_short_side_px) == (first.dataset, first.eval_short_side_px)
    ]
    return min(alike, key=lambda row: HEADLINE_METHODS.index(row.method))


def _row_name(row: Row) -> str:
    # Without a slash: MLflow's charts make a section of everything before the last one.
    return f"{row.method}.{_clean(row.dataset)}.{row.eval_short_side_px}"


def _clean(name: str) -> str:
    """Return a name without characters that MLflow refuses in a metric; cut the end if long."""
    clean = re.sub(r"[^\w.\- ]", "_", name).strip(".") or "_"
    if len(clean) > _LONGEST_NAME:
        clean = f"{clean[:_LONGEST_NAME]}_{digest(name)[:8]}"
    return clean
