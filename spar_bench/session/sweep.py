"""Run an experiment: plan it, make what is missing, mirror it to MLflow, return its results.

Torch is imported when something must be made, or when nothing tells which machine this is.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from spar_bench import track
from spar_bench.conflicts import read_specs
from spar_bench.errors import LeaseLost, SparBenchError
from spar_bench.opening import open_store
from spar_bench.plan.making import make_plan
from spar_bench.plan.suite import SuitePlan
from spar_bench.plan.trials import Plan, Trial
from spar_bench.processes import n_processes
from spar_bench.results import Results
from spar_bench.session.collect import Collector
from spar_bench.session.experiment import Experiment
from spar_bench.session.making import AnotherMachine, Making, keep
from spar_bench.session.options import Options, Outcome
from spar_bench.session.readiness import ready_remarks
from spar_bench.session.selection import (
    note_suite,
    require_unedited,
    seeds_of,
    select_trials,
    stages_after_trials,
    stages_of_trials,
    time_only,
)
from spar_bench.session.watcher import Silent, Watcher
from spar_bench.spec import Point
from spar_bench.spec.read import experiment_name

if TYPE_CHECKING:
    from spar_bench.session.search import Asked

__all__ = ["Options", "Outcome", "sweep"]

log = logging.getLogger(__name__)


def sweep(
    path: str | Path,
    options: Options | None = None,
    *,
    watcher: Watcher | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Run the experiment of a spec file, or those of a suite's folder; no work is repeated.

    The experiments of a suite are made as one: what they share once, and timed in one session. Its
    searches follow, one after another.

    Raises:
        SpecError: the spec has mistakes.
        NotReady: weights or data are missing, or the device is not available.
        StoreError: the store cannot be used, or a plug-in of this package that made a stage of it
            was edited under its VERSION.
        Interrupted: `stop` was set; the same call resumes from there.
    """
    asked = path, options or Options(), watcher or Silent(), stop or threading.Event()
    try:
        return _Sweep(*asked).run()
    except AnotherMachine:  # which is remembered from now on
        return _Sweep(*asked).run()


class _Sweep:
    """One run of an experiment, or of a suite's."""

    def __init__(
        self, path: str | Path, options: Options, watcher: Watcher, stop: threading.Event
    ) -> None:
        specs = read_specs(path)
        if options.only and any(loaded.search for loaded in specs):
            raise SparBenchError(
                "only: must be left out where a search asks for its trials one by one, but is "
                "given; leave it out"
            )
        n = max(n_processes(), options.processes)
        for line in dict.fromkeys(line for loaded in specs for line in ready_remarks(loaded, n)):
            log.warning("%s", line)
        self._path, self._options, self._watcher = Path(path), options, watcher
        self._store = open_store(options.store)
        self._making = Making(self._store, options, watcher, stop)
        uri = track.tracking_uri(options.tracking_uri)
        self._experiments = [
            Experiment(loaded, seeds_of(loaded, options.n_seeds), self._store, uri)
            for loaded in specs
        ]

    def run(self) -> Outcome:
        """Run all trials, then time everything in one session; then searches, one by one."""
        with self._making.open():
            return self._run()

    def _run(self) -> Outcome:
        grids = [one for one in self._experiments if not one.loaded.search]
        suite = SuitePlan({one.name: self._planned(one) for one in grids}) if grids else None
        trials = self._trials(suite) if suite is not None else []
        for one in self._experiments:
            left_out = one.note()
            if left_out:
                log.info(
                    "%s: seeds of earlier sweeps are not in the results now: %s",
                    one.name,
                    left_out,
                )
        if self._path.is_dir():
            note_suite(self._path, [one.name for one in self._experiments], self._store)
        self._store.share_results()
        found, running = dict[str, Results](), list(self._experiments)
        try:
            if suite is not None:
                self._make_grids(suite, trials)
            for one in (*grids, *(one for one in self._experiments if one.loaded.search)):
                if one.loaded.search:
                    self._search(one)
                found[one.name] = one.finish()
                self._store.share_results()
                running.remove(one)
        except BaseException:
            for one in running:
                try:
                    one.mirror.interrupt()
                except Exception:  # what ended the sweep is told, not what follows from it
                    log.exception("%s: MLflow still shows it as running", one.name)
            raise
        rows = [row for one in self._experiments for row in found[one.name].rows]
        return Outcome(
            experiment_name(self._path), rows, self._making.n_made, self._making.failures
        )

    def _planned(self, one: Experiment) -> Plan:
        """Plan a grid, whose plan is then a part of the suite's."""
        one.plan = make_plan(one.loaded.points, one.seeds, self._making.machine)
        return one.plan

    def _trials(self, suite: SuitePlan) -> list[Trial]:
        """Return the trials of all grids that are asked for, of which alone something is timed."""
        trials = select_trials(suite.whole.trials, self._options.only)
        time_only(suite.whole, trials, self._store)
        suite.share_timings()
        require_unedited(suite.whole, trials, self._store)
        return trials

    def _make_grids(self, suite: SuitePlan, trials: list[Trial]) -> None:
        self._watcher.planned(suite.whole, self._store)
        experiments = {one.name: one for one in self._experiments}
        own = suite.trials()

        def show(trial: Trial) -> None:
            name, its_own = own[trial.name]
            experiments[name].show(its_own)

        self._execute(suite.whole, trials, timed=True, show=show)

    def _search(self, one: Experiment) -> None:
        """Ask for one trial after another; all are timed at the end, in one session."""
        from spar_bench.session.search import Searcher, score

        searcher = Searcher(one.loaded, self._store, self._making.check)
        with closing(iter(searcher)) as asking:
            for asked in asking:
                try:
                    self._try(one, asked, timed="latency_p50_ms" in searcher.objectives)
                except LeaseLost as lost:  # another sweep has taken the trial over
                    log.warning("%s", lost)
                if self._options.fail_fast and self._making.failures:
                    break
        self._plan(one, {point.group: point for point in searcher.past()}.values())
        self._execute_all(one, timed=True)
        collector = Collector(one.name, one.plan, self._store)
        scored = {t.name: score(collector, t, searcher.objectives) for t in one.plan.trials}
        one.objectives = {name: found for name, found in scored.items() if found}

    def _try(self, one: Experiment, asked: "Asked", *, timed: bool) -> None:
        """Make a trial that a search has asked for, and tell it the score."""
        number, n_trials = asked.trial.number + 1, asked.searcher.search.trials
        log.info("trial %d of %d: %s", number, n_trials, asked.point.group)
        self._plan(one, [asked.point])
        self._making.prune = asked.prune_reason
        try:
            self._execute_all(one, timed=timed)
        finally:
            self._making.prune = keep
        asked.tell(Collector(one.name, one.plan, self._store))

    def _plan(self, one: Experiment, points: Iterable[Point]) -> None:
        """Plan points that a search has asked for."""
        one.plan = make_plan(points, one.seeds, self._making.machine, keep_pruned=one.loaded.prunes)
        require_unedited(one.plan, one.plan.trials, self._store)
        self._watcher.planned(one.plan, self._store)

    def _execute_all(self, one: Experiment, *, timed: bool) -> None:
        self._execute(one.plan, one.plan.trials, timed=timed, show=one.show)

    def _execute(
        self, plan: Plan, trials: list[Trial], *, timed: bool, show: Callable[[Trial], None]
    ) -> None:
        """Make the stages of trials; show each trial when it ends, though not timed yet."""
        wanted = stages_of_trials(plan, trials, timed=timed)
        scheduler = self._making.scheduler(plan, wanted)
        left = {trial.name: {f for row in trial.rows for f in row.stages} for trial in trials}
        waiting: dict[str, list[Trial]] = {}
        for trial in trials:
            for fingerprint in left[trial.name]:
                waiting.setdefault(fingerprint, []).append(trial)

        def ended(fingerprint: str) -> None:
            for trial in waiting[fingerprint]:
                left[trial.name].discard(fingerprint)
                if not left[trial.name] and self._is_new(plan, trial):
                    show(trial)

        scheduler.make(waiting, ended=ended)
        if (
            self._options.retime
            and timed
            and plan.latency
            and plan.latency not in scheduler.outcomes
        ):
            self._store.discard(plan.latency)
        last = stages_after_trials(plan, trials, timed=timed)
        if plan.latency in last:
            for one in self._experiments:
                one.mirror.settle()  # what is timed has the machine for itself
        scheduler.make(last)

    def _is_new(self, plan: Plan, trial: Trial) -> bool:
        """Return whether this sweep made anything of a trial, or failed to."""
        return any(
            self._making.outcomes.get(key, "found") != "found" for key in plan.of_trial(trial)
        )
