"""The MLflow mirror of a sweep: nothing is imported, contacted or locked before it is needed."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from spar_bench.track.client import answering, connect, experiments, search_runs
from spar_bench.track.entry import RunRecord
from spar_bench.track.locks import lock_name, sweep_lock, taken
from spar_bench.track.runs import Ending, SweepRecord, SweepRuns
from spar_bench.track.shown import Shown


class Mirror:
    """Shows a sweep in MLflow: a parent run, and a child run for each record.

    The store, not MLflow, is the record: mirroring again changes nothing, or completes what is
    missing. One process at a time mirrors a sweep; in any other, every call does nothing, and
    returns False or None. After an error, the next call connects again and looks at what was
    written.

    Raises (every method):
        StoreError: the tracking store cannot be reached, written or read.
    """

    def __init__(self, uri: str, sweep: SweepRecord) -> None:
        self._uri, self._sweep = uri, sweep
        self._lock = ExitStack()
        self._runs: SweepRuns | None = None

    def record(self, records: Iterable[RunRecord]) -> bool:
        """Show records; one that is shown already costs no call."""
        with self._open() as runs:
            if runs is None:
                return False
            for record in records:
                runs.record(record)
        return True

    def end(self, ending: Ending) -> Shown | None:
        """End the parent run of a sweep whose records are shown; return where they are."""
        with self._open() as runs:
            shown = None if runs is None else runs.end(ending)
        if shown is not None:
            self._close()
        return shown

    def interrupt(self) -> None:
        """Mark the parent run as KILLED if this process opened it."""
        if self._runs is None:
            return
        with self._open() as runs:
            if runs is not None:
                runs.interrupt()
        self._close()

    @contextmanager
    def _open(self) -> Iterator[SweepRuns | None]:
        """Yield the sweep's runs, or None if another process writes them; close on an error."""
        try:
            with answering(self._uri):
                if self._runs is None:
                    self._runs = self._take()
                yield self._runs
        except BaseException:
            self._close()
            raise

    def _take(self) -> SweepRuns | None:
        name = lock_name(self._uri, self._sweep.experiment, self._sweep.spec_hash)
        if not self._lock.enter_context(taken(sweep_lock(self._uri, name))):
            return None
        client = connect(self._uri)
        end_dead_runs(client, self._uri)
        return SweepRuns(client, self._uri, self._sweep, name)

    def _close(self) -> None:
        self._runs = None
        self._lock.close()


def end_dead_runs(client: Any, uri: str) -> int:
    """Mark as KILLED every run whose sweep no longer holds its lock; return how many."""
    ids = [experiment.experiment_id for experiment in experiments(client)]
    running = "attributes.status = 'RUNNING' and tags.`spar.lock`"
    names = {run.data.tags["spar.lock"] for run in search_runs(client, ids, f"{running} LIKE '%'")}
    ended = 0
    for name in sorted(names):
        with taken(sweep_lock(uri, name)) as is_dead:
            # Looked at again: the sweep may have ended by itself before its lock was taken.
            found = search_runs(client, ids, f"{running} = '{name}'") if is_dead else []
            for run in found:
                client.set_terminated(run.info.run_id, "KILLED")
                ended += 1
    return ended
