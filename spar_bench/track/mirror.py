"""The MLflow mirror of a sweep: opened before it, updated by each trial, ended with it."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from spar_bench.results import TrialRecord
from spar_bench.track.client import answering, connect, experiment_ids, search_runs
from spar_bench.track.liveness import in_place_of_the_dead, lock_name, sweep_lock
from spar_bench.track.sweep_runs import Sweep, SweepRuns

_log = logging.getLogger(__name__)


class Mirror:
    """Shows a sweep in MLflow: a parent run, and a child run for each trial.

    If several processes sweep the same spec at once, the first one writes; another takes over when
    it ends or dies, and keeps what was written. The store, not MLflow, is the record: mirroring
    again changes nothing, or completes what is missing. `poll` is called twice a second while
    waiting for another process, and may raise.

    Raises (every method):
        StoreError: the tracking store cannot be reached, written or read.
    """

    def __init__(self, uri: str, *, poll: Callable[[], None] = lambda: None) -> None:
        self._uri, self._poll = uri, poll
        self._client = connect(uri)
        self._waiting: list[TrialRecord] = []
        self._runs: SweepRuns | None = None
        self._sweep: Sweep | None = None
        self._lock: FileLock | None = None

    def start(
        self, experiment: str, spec_text: str, spec_hash: str, params: dict[str, Any]
    ) -> None:
        """Open the sweep's parent run, and mark as KILLED those whose process is gone."""
        name = lock_name(self._uri, experiment, spec_hash)
        self._sweep = Sweep(
            experiment=experiment,
            spec_text=spec_text,
            spec_hash=spec_hash,
            params=params,
            lock_name=name,
        )
        with answering(self._uri):
            self._lock = sweep_lock(self._uri, name)
            self._lead(wait=False)
            end_dead_runs(self._client, self._uri)

    def record(self, trial: TrialRecord) -> None:
        """Show a trial's record, or queue it while another process writes."""
        self._waiting.append(trial)
        with answering(self._uri):
            if self._lead(wait=False):
                self._flush()

    def finish(self, results_folder: Path, status: Literal["finished", "failed", "killed"]) -> None:
        """Show queued trials, log the results (unless killed) and end the parent run."""
        with answering(self._uri):
            # A process that is told to stop does not wait; the writing process ends the run.
            if not self._lead(wait=status != "killed"):
                return
            self._flush()
            assert self._runs is not None, "a leading mirror has opened its runs"
            assert self._lock is not None, "a leading mirror holds its lock"
            self._runs.close(results_folder, status)
            self._runs = None
            self._lock.release()

    def _lead(self, *, wait: bool) -> bool:
        """Tell whether this process writes the sweep's runs; it takes over if none does."""
        if self._runs is not None:
            return True
        assert self._lock is not None, "start comes before record and finish"
        assert self._sweep is not None, "start comes before record and finish"
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                return False
            _log.info("waiting for another sweep of this spec to end its MLflow run")
            self._wait(self._lock)
        self._runs = SweepRuns(self._client, self._uri, self._sweep)
        return True

    def _wait(self, lock: FileLock) -> None:
        while not lock.is_locked:
            self._poll()
            with suppress(Timeout):
                lock.acquire(timeout=0.5)

    def _flush(self) -> None:
        assert self._runs is not None, "only a leading mirror writes"
        while self._waiting:
            self._runs.record(self._waiting[0])
            del self._waiting[0]


def end_dead_runs(client: Any, uri: str) -> int:
    """Mark as KILLED every run whose sweep no longer holds its lock; return how many."""
    ids = list(experiment_ids(client).values())
    running = "attributes.status = 'RUNNING' and tags.`spar.lock`"
    names = {run.data.tags["spar.lock"] for run in search_runs(client, ids, f"{running} LIKE '%'")}
    ended = 0
    for name in sorted(names):
        with in_place_of_the_dead(uri, name) as is_dead:
            found = search_runs(client, ids, f"{running} = '{name}'") if is_dead else []
            for run in found:
                client.set_terminated(run.info.run_id, "KILLED")
                ended += 1
    return ended
