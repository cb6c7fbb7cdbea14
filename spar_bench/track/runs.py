"""The runs of one sweep in MLflow, written by the one process that holds the sweep's lock.

A run in MLflow can only grow: params and points of a curve cannot be changed. A run that no longer
matches its record (for example, of a student trained again after the store was deleted) is
therefore deleted, i.e. moved to MLflow's bin, which `mlflow gc` empties, and created again.

Every run is created with its key as a tag, so one whose creation was not answered is found again.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from spar_bench.results import Row
from spar_bench.stage import digest
from spar_bench.track.client import search_runs
from spar_bench.track.entry import (
    RUN_STATUS,
    Details,
    Entry,
    RunRecord,
    aggregates,
    as_text,
    whole_record,
)
from spar_bench.track.shown import Shown, server_of
from spar_bench.track.uri import artifact_root, sqlite_path
from spar_bench.track.view import VIEW, view_path, view_state, view_tag

if TYPE_CHECKING:
    from mlflow.entities import Run

T = TypeVar("T")

CURVE = "train_loss"
RECORD_FILE = "trial.json"
NOTE_TAG = "mlflow.note.content"
_PARENT = "sweep"
_POINTS_A_BATCH = 800  # MLflow allows 1000, with params and tags
_PARAMS_A_BATCH = 100
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """What identifies a sweep's parent run, and what it shows from the beginning."""

    experiment: str
    spec_hash: str
    question: str
    params: dict[str, object]
    started_ms: int


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What the parent run shows of an ended sweep.

    `keys` are those of all runs that the sweep has, shown or not; `write` writes the files to be
    shown into a folder, and `digest` changes with them.
    """

    status: Literal["finished", "failed"]
    ended_ms: int
    rows: list[Row]
    keys: set[str]
    digest: str
    write: Callable[[Path], None]


class SweepRuns:
    """A parent run, RUNNING from construction until `end`, and its children by key."""

    def __init__(self, client: Any, uri: str, sweep: SweepRecord, lock_name: str) -> None:
        self._client = client
        self._server = server_of(uri)
        self._sweep = sweep
        self._tags = {
            "spar.spec": sweep.spec_hash,
            "spar.lock": lock_name,
            "mlflow.source.name": "spar-bench",
            "mlflow.source.type": "LOCAL",
        }
        self._experiment_id = _experiment_id(client, uri, sweep.experiment)
        self._runs = self._found()
        # The original state: `end` restores it if this sweep turns out to change nothing.
        self._parent = self._runs.pop(_PARENT, None) or self._create_parent()
        self._trials: dict[str, str] = {}
        self._entries: dict[str, Entry] = {}
        client.update_run(self._parent.info.run_id, status="RUNNING")
        params = {name: as_text(value) for name, value in sweep.params.items()}
        self._log(self._parent, _missing(params, self._parent.data.params), tags=self._tags)

    def record(self, record: RunRecord) -> None:
        """Write a record's run, or the missing parts of it; do nothing if it is complete."""
        if self._trials.setdefault(record.key, record.trial) != record.trial:
            return  # shared with a trial that was recorded before
        entry = Entry.of(record)
        self._entries[record.key] = entry
        run = self._runs.get(record.key)
        if run is not None and _is_current(run, entry):
            return
        details = None if run is not None and _is_detailed(run, record, entry) else record.read()
        if run is not None and _contradicts(run, entry, details):
            self._client.delete_run(run.info.run_id)
            run = None
        if run is None:
            details = details or record.read()
            run = self._create_child(record, details)
        self._complete(run, record, entry, details)

    def end(self, ending: Ending) -> Shown:
        """Show an ended sweep: its means, files and view; delete runs that it no longer has."""
        for key in self._runs.keys() - ending.keys:
            self._client.delete_run(self._runs.pop(key).info.run_id)
        info = self._parent.info
        is_shown = self._parent.data.tags.get("spar.results") == ending.digest
        if not is_shown:
            with tempfile.TemporaryDirectory() as folder:
                ending.write(Path(folder))
                self._client.log_artifacts(info.run_id, folder)
        self._show_view()
        known = self._parent.data.metrics
        means = {k: v for k, v in aggregates(ending.rows).items() if known.get(k) != v}
        points = [(name, value, ending.ended_ms, 0) for name, value in means.items()]
        # Last: a sweep that is mirrored again compares it.
        self._log(self._parent, points=points, tags={"spar.results": ending.digest})
        status = RUN_STATUS[ending.status]
        ended_ms = info.end_time if is_shown and info.status == status else ending.ended_ms
        self._client.set_terminated(info.run_id, status, end_time=ended_ms)
        ids = {key: run.info.run_id for key, run in self._runs.items()}
        return Shown(server=self._server, experiment_id=self._experiment_id, runs=ids)

    def interrupt(self) -> None:
        """Mark the parent run as KILLED."""
        self._client.set_terminated(self._parent.info.run_id, "KILLED")

    def _found(self) -> "dict[str, Run]":
        """Return the sweep's runs by key; delete doubles, and runs of releases without keys."""
        query = f"tags.`spar.spec` = '{self._sweep.spec_hash}'"
        runs: dict[str, Run] = {}
        found = search_runs(self._client, [self._experiment_id], query)
        # Complete ones first: of doubles, the first is kept.
        for run in sorted(found, key=lambda run: "spar.digest" not in run.data.tags):
            key = run.data.tags.get("spar.key")
            if key is None or key in runs:
                self._client.delete_run(run.info.run_id)
                continue
            runs[key] = run
            # Interrupted by a kill; `record` completes those that are still part of the sweep.
            if key != _PARENT and run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, "KILLED")
        return runs

    def _create_parent(self) -> Any:
        name = f"{self._sweep.experiment} {self._sweep.spec_hash[:8]}"
        tags = self._tags | {"spar.key": _PARENT}
        return self._client.create_run(
            self._experiment_id, start_time=self._sweep.started_ms, tags=tags, run_name=name
        )

    def _create_child(self, record: RunRecord, details: Details) -> Any:
        tags = self._tags | {
            "mlflow.parentRunId": self._parent.info.run_id,
            "spar.key": record.key,
            "spar.trial": record.trial,
            "spar.group": record.group,
        }
        run = self._client.create_run(
            self._experiment_id, start_time=details.started_ms, tags=tags, run_name=record.name
        )
        self._runs[record.key] = run
        return run

    def _complete(self, run: Any, record: RunRecord, entry: Entry, details: Details | None) -> None:
        """Add what a run lacks; `details` is None if it has them already."""
        run_id, tags = run.info.run_id, entry.tags | {"spar.digest": entry.digest}
        ended_ms = details.ended_ms if details else run.info.end_time
        metrics = _missing(entry.metrics, run.data.metrics)
        points = [(name, value, ended_ms, 0) for name, value in metrics.items()]
        if details:
            tags |= {"spar.details": record.details_key}
        if curve := _points(details):
            # Before the points, so that an interrupted curve is recognised and completed.
            self._client.set_tag(run_id, "spar.curve", digest(curve))
            points += curve
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / RECORD_FILE).write_text(whole_record(record), encoding="utf-8")
            for name, source in details.artifacts.items() if details else ():
                (Path(folder) / name).symlink_to(source.absolute())
            self._client.log_artifacts(run_id, folder)
        if "spar.reason" in run.data.tags and "spar.reason" not in tags:
            self._client.delete_tag(run_id, "spar.reason")
        self._log(run, _missing(entry.params, run.data.params), points, tags)
        if (run.info.status, run.info.end_time) != (entry.status, ended_ms):
            self._client.set_terminated(run_id, entry.status, end_time=ended_ms)
        self._runs[record.key] = self._client.get_run(run_id)

    def _show_view(self) -> None:
        """Prepare the view of this sweep, and link to it where the interface is entered."""
        experiment = self._client.get_experiment(self._experiment_id)
        own = f"{VIEW}-{self._sweep.spec_hash[:8]}"
        entries = self._entries.values()
        state = view_state(
            self._sweep.spec_hash, [one.params for one in entries], [one.metrics for one in entries]
        )
        for name in (VIEW, own):
            self._client.set_experiment_tag(self._experiment_id, view_tag(name), state)
        link = f"[Table and charts of the newest sweep]({view_path(self._experiment_id, VIEW)})"
        note = experiment.tags.get(NOTE_TAG, "")
        if link not in note:  # the rest may be a user's own
            self._client.set_experiment_tag(
                self._experiment_id, NOTE_TAG, "\n\n".join(filter(None, [note, link]))
            )
        link = f"[Table and charts]({view_path(self._experiment_id, own)})"
        text = "\n\n".join(filter(None, [self._sweep.question, link]))
        self._client.set_tag(self._parent.info.run_id, NOTE_TAG, text)

    def _log(
        self,
        run: Any,
        params: Mapping[str, str] = _NOTHING,
        points: Sequence[tuple[str, float, int, int]] = (),
        tags: Mapping[str, str] = _NOTHING,
    ) -> None:
        """Log params, then (name, value, milliseconds since the epoch, step), then tags.

        MLflow drops points that it has.
        """
        from mlflow.entities import Metric, Param, RunTag

        left, queue = [Param(*item) for item in params.items()], [Metric(*p) for p in points]
        while True:
            now, left = left[:_PARAMS_A_BATCH], left[_PARAMS_A_BATCH:]
            some, queue = queue[:_POINTS_A_BATCH], queue[_POINTS_A_BATCH:]
            last = not (left or queue)
            self._client.log_batch(
                run.info.run_id,
                metrics=some,
                params=now,
                tags=[RunTag(*item) for item in tags.items()] if last else [],
            )
            if last:
                return


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


def _is_current(run: Any, entry: Entry) -> bool:
    return (run.data.tags.get("spar.digest"), run.info.status) == (entry.digest, entry.status)


def _is_detailed(run: Any, record: RunRecord, entry: Entry) -> bool:
    """Whether a run has its curve, files and times."""
    known = run.data.tags.get("spar.details"), run.info.status
    return known == (record.details_key, entry.status)


def _contradicts(run: Any, entry: Entry, details: Details | None) -> bool:
    """Whether the run contains anything that its record does not."""
    metrics = {name: value for name, value in run.data.metrics.items() if name != CURVE}
    curve = run.data.tags.get("spar.curve")
    return (
        not metrics.items() <= entry.metrics.items()
        or not run.data.params.items() <= entry.params.items()
        or (details is not None and curve not in (None, digest(_points(details))))
    )


def _points(details: Details | None) -> list[tuple[str, float, int, int]]:
    """Return a curve as MLflow takes it, which would read infinity back as a number."""
    curve = details.curve if details else []
    return [(CURVE, loss, at, step) for step, loss, at in curve if math.isfinite(loss)]


def _missing(wanted: Mapping[str, T], known: Mapping[str, T]) -> dict[str, T]:
    return {name: value for name, value in wanted.items() if name not in known}
