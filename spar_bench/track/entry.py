"""What MLflow shows of one run: only names and values, without MLflow."""

import dataclasses
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from spar_bench.results import Row, Status
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
"""Maps our status of a run or sweep to MLflow's."""

_COSTS = [
    "n_windows", "gflops", "latency_p10_ms", "latency_p50_ms", "latency_p90_ms", "encoder_p50_ms",
    "peak_mib", "params_m",
]  # fmt: skip
_TRAINING = ["trained_params_m", "teach_gflops", "train_gflops", "train_seconds"]  # others: params
_COSTS_A_ROW = ("gflops", "latency_p50_ms")
_LONGEST_NAME = 80  # of a group or data set; MLflow refuses a metric of more than 250 characters
_LONGEST_TEXT = 5000  # MLflow cuts a param at 6000 and a tag at 8000 characters


@dataclass(frozen=True, kw_only=True)
class Details:
    """What a run shows besides its rows, read from the store only when the run is written.

    `curve` holds (step, loss, milliseconds since the epoch); `artifacts` maps a file's name among
    the run's artifacts to the file on disk.
    """

    curve: list[tuple[int, float, int]]
    started_ms: int
    ended_ms: int
    artifacts: dict[str, Path]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A method of a trial: one run in MLflow, which trials with the same evaluations share.

    `key` is equal for the same evaluations; `params` are the settings that decide them;
    `details_key` changes with whatever `read` returns, except times.
    """

    key: str
    name: str
    trial: str
    group: str
    seed: int | None
    method: str
    status: Status
    reason: str
    params: dict[str, object]
    rows: list[Row]
    details_key: str
    read: Callable[[], Details]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A record as MLflow takes it; `metrics` are single values, `digest` covers all that is shown.

    Times, and the trial after which a shared run is named, are not part of the digest.
    """

    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    status: str
    digest: str

    @classmethod
    def of(cls, record: RunRecord) -> "Entry":
        """Convert a record."""
        params: dict[str, object] = {"method": record.method, **record.params}
        tags = {"spar.method": record.method, "spar.status": record.status}
        if record.seed is not None:
            params["seed"] = record.seed
            tags["spar.seed"] = str(record.seed)
        if record.reason:
            tags["spar.reason"] = record.reason[:_LONGEST_TEXT]
        shown = {name: as_text(value) for name, value in params.items()}
        metrics = _metrics(record.rows)
        return cls(
            params=shown,
            metrics=metrics,
            tags=tags,
            status=RUN_STATUS[record.status],
            digest=digest([shown, metrics, tags, record.details_key]),
        )


def whole_record(record: RunRecord) -> str:
    """Return a run's settings and rows as JSON; unlike params, long ones are not cut."""
    document = {
        "trial": record.trial,
        "group": record.group,
        "seed": record.seed,
        "method": record.method,
        "settings": record.params,
        "rows": [dataclasses.asdict(row) for row in record.rows],
    }
    return json.dumps(document, indent=1)


def as_text(value: Any) -> str:
    """Return a setting as an MLflow param: text as it is, all else as JSON, cut if very long."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def aggregates(rows: Iterable[Row]) -> dict[str, float]:
    """Return each group's mean mIoU as metrics, with standard deviation for two or more seeds.

    A method that no seed can affect counts once, without a deviation.
    """
    values: defaultdict[tuple[str, str, str, int], dict[int | None, float]] = defaultdict(dict)
    for row in rows:
        if row.miou is not None and math.isfinite(row.miou):
            place = (row.group, row.method, row.dataset, row.eval_short_side_px)
            values[place][row.seed] = row.miou
    metrics: dict[str, float] = {}
    for name, by_seed in zip(_names(values), values.values(), strict=True):
        metrics[f"miou_mean/{name}"] = mean(by_seed.values())
        if len(by_seed) > 1:
            metrics[f"miou_sd/{name}"] = stdev(by_seed.values())
    return metrics


def metric_name(name: str) -> str:
    """Return a name as part of a metric's: distinct names stay distinct.

    MLflow refuses most punctuation, and its charts make a section of all before a slash.
    """
    shown = re.sub(r"[^\w.\- :]", "_", name.replace("=", ":"))
    is_same = shown.replace(":", "=") == name and not re.search(r"\.[0-9a-f]{8}$", name)
    if is_same and len(shown) <= _LONGEST_NAME:
        return shown
    return f"{shown[:_LONGEST_NAME]}.{digest(name)[:8]}"


def _names(places: Iterable[tuple[str, str, str, int]]) -> list[str]:
    """Return the end of a metric's name for each (group, method, data set, short side)."""
    named = {
        place: ".".join(metric_name(part) if isinstance(part, str) else str(part) for part in place)
        for place in places
    }
    uses = Counter(named.values())  # a name with a dot in it may look like two
    return [
        name if uses[name] == 1 else f"{name}.{digest(place)[:8]}" for place, name in named.items()
    ]


def _metrics(rows: list[Row]) -> dict[str, float]:
    """Return the metrics of the first data set and resolution, then those of each."""
    candidates: dict[str, Any] = {}
    for row in rows:
        name = f"{metric_name(row.dataset)}.{row.eval_short_side_px}"
        cost = dataclasses.asdict(row.cost)
        if not candidates:
            candidates = {"miou": row.miou, **{cost_name: cost[cost_name] for cost_name in _COSTS}}
            candidates |= {name: getattr(row.training, name) for name in _TRAINING}
        candidates[f"miou/{name}"] = row.miou
        candidates |= {f"{cost_name}/{name}": cost[cost_name] for cost_name in _COSTS_A_ROW}
        candidates |= {
            f"{metric_name(key)}/{name}": value
            for key, value in row.probed.items()
            if isinstance(value, int | float)
        }
    # MLflow reads infinity back as 1.8e308, and a NaN hides the run from its plots.
    return {
        name: float(value)
        for name, value in candidates.items()
        if value is not None and math.isfinite(value)
    }
