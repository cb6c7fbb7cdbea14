"""Show sweeps in MLflow from the store: while they run, when they end, and later by command."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from spar_bench import track
from spar_bench.errors import StoreError
from spar_bench.evaluations import StoredEvaluations
from spar_bench.files import replace_text
from spar_bench.opening import open_store
from spar_bench.results import Results
from spar_bench.session.per_class import per_class_csv
from spar_bench.session.reports import read_results, swept_names
from spar_bench.session.run_records import PER_CLASS_FILE, run_keys, run_records
from spar_bench.stage import digest
from spar_bench.store import DEFAULT_ROOT, Store
from spar_bench.track.shown import Shown

log = logging.getLogger(__name__)


class LiveMirror:
    """Shows a sweep in MLflow while it runs, in a thread of its own: no work waits for a server.

    A tracking store that fails costs one warning. After a failure no further trial is shown: all
    are at the sweep's end, or by the next sweep, or by `mirror`.
    """

    def __init__(self, uri: str, store: Store, sweep: track.SweepRecord) -> None:
        self._store, self._experiment = store, sweep.experiment
        self._mirror, self._uri = track.Mirror(uri, sweep), uri
        self._has_failed, self._is_open = False, False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mirror")
        self._jobs = list[Future[None]]()

    def show(self, part: Results) -> None:
        """Begin to show the results of trials that have ended."""
        self._is_open = True
        self._jobs.append(self._thread.submit(self._show, part))

    def settle(self) -> None:
        """Wait until all that was given is shown."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.result()

    def end(self, results: Results) -> None:
        """Show all results, which are in the store, and end the sweep's run.

        Nothing is contacted if this sweep showed nothing new, and an earlier one all.
        """
        self._finish(partial(self._end, results, was_open=self._is_open))

    def interrupt(self) -> None:
        """Show what was given, and mark the sweep's run as KILLED."""
        if self._is_open:
            self._finish(self._kill)

    def _finish(self, last: Callable[[], None]) -> None:
        """Do the last that is to be done, and wait for it and all before."""
        with self._thread:
            self._is_open = False
            self._jobs.append(self._thread.submit(last))
        self.settle()

    def _show(self, part: Results) -> None:
        if not self._has_failed:
            with self._warning():
                self._mirror.record(run_records(part, self._store))

    def _end(self, results: Results, *, was_open: bool) -> None:
        with self._warning():
            shown = None if was_open else Shown.load(_folder(results, self._store))
            if shown is None or not shown.has(self._uri, results.as_json()):
                ended_ms = time.time_ns() // 1_000_000
                _show(self._mirror, results, self._store, uri=self._uri, ended_ms=ended_ms)

    def _kill(self) -> None:
        with self._warning():
            self._mirror.interrupt()

    @contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if not self._has_failed:
                log.warning(
                    "%s; the sweep goes on, and spar-bench mirror %s shows it later",
                    error,
                    self._experiment,
                )
            self._has_failed = True


def mirror(
    experiments: str | Iterable[str] = (),
    *,
    store: str | Path = DEFAULT_ROOT,
    tracking_uri: str | None = None,
    on_mirrored: Callable[[str, bool], None] | None = None,
) -> None:
    """Show finished sweeps in MLflow; what is shown already is left as it is.

    Args:
        experiments: One or more names, or their specs' paths; none: all that have results.
        store: Where the sweeps were run.
        tracking_uri: Where they are shown.
        on_mirrored: Receives each experiment, and False if a sweep that runs now shows it.

    Raises:
        NotReady: there is no finished sweep, or its results cannot be read.
        StoreError: the tracking store cannot be used, or the store is of another format.
    """
    opened, uri = open_store(store, make=False), track.tracking_uri(tracking_uri)
    for name in swept_names(opened, experiments):
        results = read_results(opened, name)
        made = [stage["made"] for stage in results.provenance["stages"].values()]
        sweep = track.SweepRecord(
            experiment=name,
            spec_hash=results.provenance["spec_hash"],
            question=results.question,
            params={"seeds": results.provenance["seeds"]},
            started_ms=min((record["started_ms"] for record in made), default=0),
        )
        ended_ms = max((record["ended_ms"] for record in made), default=0)
        is_shown = _show(track.Mirror(uri, sweep), results, opened, uri=uri, ended_ms=ended_ms)
        if on_mirrored is not None:
            on_mirrored(name, is_shown)


def _folder(results: Results, store: Store) -> Path:
    return store.results / results.experiment


def _show(mirror: track.Mirror, results: Results, store: Store, *, uri: str, ended_ms: int) -> bool:
    """Show results and end the sweep's run; False if another process shows this sweep."""
    folder = _folder(results, store)
    while True:
        text = results.as_json()
        ending = track.Ending(
            status="failed" if results.has_failed else "finished",
            ended_ms=ended_ms,
            rows=results.rows,
            keys=run_keys(results),
            digest=hashlib.sha256(text.encode()).hexdigest(),
            write=partial(_write_files, results, store),
        )
        shown = mirror.end(ending) if mirror.record(run_records(results, store)) else None
        if shown is None:
            return False
        replace(shown, uri_sha256=digest(uri), results_sha256=digest(text)).save(folder)
        # Another process of this sweep that ended meanwhile left its results to this one.
        latest = Results.load(folder)
        is_other = latest.provenance["spec_hash"] != results.provenance["spec_hash"]
        if is_other or latest.as_json() == text:
            return True
        results = latest


def _write_files(results: Results, store: Store, folder: Path) -> None:
    results.save(folder)
    replace_text(folder / "spec.yaml", results.spec)
    table = per_class_csv(results.rows, StoredEvaluations(store), results.classes)
    replace_text(folder / PER_CLASS_FILE, table)
