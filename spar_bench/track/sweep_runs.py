"""The runs of one sweep in MLflow, written by the one process that holds the sweep's lock.

A run in MLflow can only grow: params and points of a curve cannot be changed. A run that no longer
matches its trial (for example, one trained again after the store was deleted) is therefore deleted,
i.e. moved to MLflow's bin, which `mlflow gc` empties, and created again.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from spar_bench.results import Results, TrialRecord
from spar_bench.track.client import search_runs
from spar_bench.track.entry import (
    RUN_STATUS,
    Entry,
    aggregates,
    as_text,
    folder_digest,
    resolved,
)
from spar_bench.track.uri import artifact_root, sqlite_path
from spar_bench.track.view import VIEW_TAG, view_state

T = TypeVar("T")

CURVE = "train_loss"
_METRICS_A_BATCH = 1000
_PARAMS_A_BATCH = 100
_OPTIONAL_TAGS = ("spar.reason", "spar.headline")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One spec's sweep: what identifies its parent run, and the run's own description."""

    experiment: str
    spec_text: str
    spec_hash: str
    params: dict[str, Any]
    lock_name: str

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags that the parent and its children have in common."""
        return {
            "spar.spec": self.spec_hash,
            "spar.lock": self.lock_name,
            "mlflow.source.name": "spar-bench",
            "mlflow.source.type": "LOCAL",
        }


class SweepRuns:
    """A parent run, RUNNING from construction until `close`, and its children by trial."""

    def __init__(self, client: Any, uri: str, sweep: Sweep) -> None:
        self._client = client
        self._sweep = sweep
        self._experiment_id = _experiment_id(client, uri, sweep.experiment)
        query = f"tags.`spar.spec` = '{sweep.spec_hash}'"
        known = search_runs(client, [self._experiment_id], query)
        parent = next((run for run in known if _trial(run) is None), None)
        params = {name: as_text(value) for name, value in sweep.params.items()}
        if parent is not None and _differs(parent.data.params, params):
            for run in known:
                client.delete_run(run.info.run_id)
            parent, known = None, []
        # The original state: `close` restores it if this sweep turns out to change nothing.
        self._parent = parent or self._create_parent()
        self._children = {_trial(run): run for run in known if _trial(run) is not None}
        for run in self._children.values():
            # Interrupted by a kill; `record` completes those that are still part of the sweep.
            if run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, "KILLED")
        self._open_parent(_missing(params, self._parent.data.params))

    def record(self, trial: TrialRecord) -> None:
        """Write a trial's run, or the missing parts of it; do nothing if it is complete."""
        entry = Entry.of(trial)
        run = self._children.get(trial.trial)
        if run is not None and _is_current(run, entry):
            return
        if run is not None and _contradicts(run, entry):
            self._client.delete_run(run.info.run_id)
            run = None
        if run is None:
            run = self._create_child(trial)
        run_id = run.info.run_id
        metrics = _missing(entry.metrics, run.data.metrics)
        self._log_params(run_id, _missing(entry.params, run.data.params))
        self._log_points(run_id, [(k, v, trial.ended_ms, 0) for k, v in metrics.items()])
        if entry.curve:
            # Before the points, so that an interrupted curve is recognised and completed.
            self._client.set_tag(run_id, "spar.curve", entry.curve_digest)
        self._log_points(run_id, [(CURVE, loss, at_ms, step) for step, loss, at_ms in entry.curve])
        self._log_artifacts(run_id, trial)
        for name in _OPTIONAL_TAGS:
            if name in run.data.tags and name not in entry.tags:
                self._client.delete_tag(run_id, name)
        self._log_tags(run_id, entry.tags | {"spar.digest": entry.digest})
        self._client.set_terminated(run_id, entry.status, end_time=trial.ended_ms)
        self._children[trial.trial] = self._client.get_run(run_id)

    def close(self, results_folder: Path, status: str) -> None:
        """End the parent run; unless the sweep was killed, first log the files of its results."""
        run_id = self._parent.info.run_id
        ended_ms = _now_ms()
        if status != "killed":
            digest = folder_digest(results_folder)
            if self._parent.data.tags.get("spar.results") != digest:
                self._log_results(results_folder, digest)
            elif self._parent.info.status == RUN_STATUS[status]:
                ended_ms = self._parent.info.end_time
            # Mirroring a run again does not change its times, so the newest one is named.
            self._client.set_experiment_tag(self._experiment_id, "spar.newest", run_id)
        self._client.set_terminated(run_id, RUN_STATUS[status], end_time=ended_ms)

    def _create_parent(self) -> Any:
        name = f"{self._sweep.experiment} {self._sweep.spec_hash[:8]}"
        return self._client.create_run(
            self._experiment_id, start_time=_now_ms(), tags=self._sweep.tags, run_name=name
        )

    def _open_parent(self, new_params: dict[str, str]) -> None:
        run_id = self._parent.info.run_id
        self._client.update_run(run_id, status="RUNNING")
        self._log_tags(run_id, self._sweep.tags)
        self._log_params(run_id, new_params)
        self._client.log_text(run_id, self._sweep.spec_text, "spec.yaml")

    def _create_child(self, trial: TrialRecord) -> Any:
        tags = self._sweep.tags | {
            "mlflow.parentRunId": self._parent.info.run_id,
            "spar.trial": trial.trial,
        }
        return self._client.create_run(
            self._experiment_id, start_time=trial.started_ms, tags=tags, run_name=trial.trial
        )

    def _log_results(self, folder: Path, digest: str) -> None:
        run_id = self._parent.info.run_id
        results = Results.load(folder)
        known = self._parent.data.metrics
        means = {k: v for k, v in aggregates(results.rows).items() if known.get(k) != v}
        self._log_points(run_id, [(name, value, _now_ms(), 0) for name, value in means.items()])
        swept = list(dict.fromkeys(key for row in results.rows for key in row.swept))
        view = view_state(self._sweep.spec_hash, swept)
        self._client.set_experiment_tag(self._experiment_id, VIEW_TAG, view)
        self._client.log_artifacts(run_id, str(folder))
        # Last, so that a sweep that is killed here logs them again.
        self._client.set_tag(run_id, "spar.results", digest)

    def _log_artifacts(self, run_id: str, trial: TrialRecord) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "trial.json").write_text(resolved(trial), encoding="utf-8")
            for name, source in trial.artifacts.items():
                link = Path(folder) / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source.absolute())
            self._client.log_artifacts(run_id, folder)

    def _log_params(self, run_id: str, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        for batch in _batches([Param(*item) for item in params.items()], _PARAMS_A_BATCH):
            self._client.log_batch(run_id, params=batch)

    def _log_tags(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()])

    def _log_points(self, run_id: str, points: list[tuple[str, float, int, int]]) -> None:
        """Log (name, value, milliseconds since the epoch, step); MLflow drops those it has."""
        from mlflow.entities import Metric

        for batch in _batches([Metric(*point) for point in points], _METRICS_A_BATCH):
            self._client.log_batch(run_id, metrics=batch)


def _experiment_id(client: Any, uri: str, name: str) -> str:
    """Return the id of the MLflow experiment of that name, created or restored if needed."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        database = sqlite_path(uri)
        # An explicit path, since MLflow's default follows the working directory.
        folder = (artifact_root(database) / name).as_uri() if database else None
        try:
            return str(client.create_experiment(name, artifact_location=folder))
        except Exception as error:
            if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def _trial(run: Any) -> str | None:
    trial: str | None = run.data.tags.get("spar.trial")
    return trial


def _is_current(run: Any, entry: Entry) -> bool:
    return (run.data.tags.get("spar.digest"), run.info.status) == (entry.digest, entry.status)


def _contradicts(run: Any, entry: Entry) -> bool:
    """Tell whether the run contains anything that the trial does not."""
    single = {name: value for name, value in run.data.metrics.items() if name != CURVE}
    curve: str = run.data.tags.get("spar.curve", entry.curve_digest)
    return (
        _differs(run.data.params, entry.params)
        or _differs(single, entry.metrics)
        or curve != entry.curve_digest
    )


def _differs(said: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return any(wanted.get(name) != value for name, value in said.items())


def _missing(wanted: dict[str, T], said: dict[str, T]) -> dict[str, T]:
    return {name: value for name, value in wanted.items() if name not in said}


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
