"""Run an experiment: plan it, make what is missing, mirror it to MLflow, hand over its results."""

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from spar_bench import track
from spar_bench.errors import UnknownName
from spar_bench.plan.trials import Plan, Trial, make_plan
from spar_bench.results import Row
from spar_bench.run.context import Context, Interrupted, ignore, place, resolve_device
from spar_bench.run.execute import Executor, Note
from spar_bench.session.collect import Collector
from spar_bench.session.ready import require_ready
from spar_bench.session.records import results, trial_record
from spar_bench.session.search import Searcher, score
from spar_bench.spec import LoadedSpec, Point, read_spec
from spar_bench.store import DEFAULT_ROOT, Stage, Store, digest

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Told how a sweep goes, as it goes."""

    def planned(self, plan: Plan, store: Store) -> None:
        """Take the plan, again whenever a search adds to it."""
        ...

    def note(self, note: Note, stage: Stage, text: str) -> None:
        """Take that a stage started, ended, waits for another sweep, or was found damaged."""
        ...

    def progress(self, stage: Stage, share: float) -> None:
        """Take the share of a stage that is done, 0 to 1."""
        ...


class Silent:
    """A watcher that looks away."""

    def planned(self, plan: Plan, store: Store) -> None:
        """Do nothing."""

    def note(self, note: Note, stage: Stage, text: str) -> None:
        """Do nothing."""

    def progress(self, stage: Stage, share: float) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep runs; none of it moves a number.

    `n_seeds` overrides the spec's seeds by 0, 1, ...; `only` names trials; `tracking_uri` is an MLflow
    URI, by default that of the environment, then `mlflow.db` in the working directory.
    """

    store: Path = DEFAULT_ROOT
    tracking_uri: str | None = None
    device: str = "auto"
    threads: int | None = None
    n_seeds: int | None = None
    only: tuple[str, ...] = ()
    retry: bool = False
    fail_fast: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: its rows, and how many stages this run made or saw fail."""

    experiment: str
    rows: list[Row]
    n_made: int
    failures: dict[str, str]

    @property
    def unfinished(self) -> list[Row]:
        """The rows without a number."""
        return [row for row in self.rows if row.status != "finished"]


def sweep(
    path: Path,
    options: Options | None = None,
    *,
    watcher: Watcher | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Run the experiment of a spec file; what is finished already is not run again.

    Raises:
        SpecError: the spec has mistakes.
        NotReady: weights or data are missing, or the device is not there.
        StoreError: the store or the tracking store cannot be used.
        Interrupted: `stop` was set; the same call goes on from there.
    """
    loaded = read_spec(path)
    return _Sweep(
        loaded, options or Options(), watcher or Silent(), stop or threading.Event()
    ).run()


class _Sweep:
    """One run of an experiment."""

    def __init__(
        self, loaded: LoadedSpec, options: Options, watcher: Watcher, stop: threading.Event
    ) -> None:
        require_ready(loaded)
        device = resolve_device(options.device, options.threads)
        self._loaded, self._options, self._watcher = loaded, options, watcher
        self._seeds = seeds_of(loaded, options.n_seeds)
        self._store = Store(options.store)
        self._context = Context(self._store, device, report=watcher.progress, stop=stop)
        self._place = place(device)
        self._mirror = track.Mirror(track.tracking_uri(options.tracking_uri))
        self._spec_hash = digest([loaded.spec_hash, self._seeds])
        self._objectives: dict[str, dict[str, float]] = {}
        self._failures: dict[str, str] = {}
        self._n_made = 0

    def run(self) -> Outcome:
        """Run all trials, then time all arms in one sitting."""
        self._mirror.start(
            self._loaded.experiment,
            self._loaded.text,
            self._spec_hash,
            {"seeds": self._seeds, "question": self._loaded.spec.question},
        )
        plan = Plan()
        try:
            plan = self._search() if self._loaded.search else self._grid()
        except BaseException as error:
            self._end(
                plan, "killed" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
            )
            raise
        outcome = self._end(plan, None)
        assert outcome is not None, "a sweep that ran to its end has rows"
        return outcome

    def _grid(self) -> Plan:
        plan = self._plan(self._loaded.points)
        trials = chosen(plan.trials, self._options.only)
        self._execute(plan, trials, timed=True)
        return plan

    def _search(self) -> Plan:
        """Ask for one trial after another; all arms are timed at the end, in one sitting."""
        searcher = Searcher(self._loaded, self._store)
        name = [searcher.name]
        with self._store.lock(name, on_wait=_say_waiting, poll=self._context.check):
            points = searcher.past()
            for asked in searcher:
                points.append(asked.point)
                plan = self._plan([asked.point])
                self._context.prune = asked.report
                self._execute(plan, plan.trials, timed="latency_p50_ms" in searcher.objectives)
                asked.tell(Collector(self._loaded.experiment, plan, self._store))
            self._context.prune = ignore
            plan = self._plan({point.group: point for point in points}.values())
            self._execute(plan, plan.trials, timed=True)
        collector = Collector(self._loaded.experiment, plan, self._store)
        scored = {t.name: score(collector, t, searcher.objectives) for t in plan.trials}
        self._objectives = {name: found for name, found in scored.items() if found}
        return plan

    def _plan(self, points: Iterable[Point]) -> Plan:
        plan = make_plan(points, self._seeds, self._place)
        self._watcher.planned(plan, self._store)
        return plan

    def _execute(self, plan: Plan, trials: list[Trial], *, timed: bool) -> None:
        """Make the stages of trials, mirroring each trial as it ends and again with its timings."""
        last = {line.cost for line in plan.costs}
        if timed and plan.latency is not None:
            last.add(plan.latency)
        wanted = last.union(*(plan.of_trial(trial) for trial in trials))
        executor = Executor(
            plan,
            self._context,
            plan.needed_by(wanted),
            notify=self._note,
            retry=self._options.retry,
            fail_fast=self._options.fail_fast,
        )
        for trial in trials:
            made = executor.make(plan.of_trial(trial))
            if made:
                self._record(plan, trial)
        executor.make(last)
        for trial in trials:
            self._record(plan, trial)

    def _record(self, plan: Plan, trial: Trial) -> None:
        collector = Collector(self._loaded.experiment, plan, self._store)
        self._mirror.record(trial_record(collector, trial))

    def _end(self, plan: Plan, status: Literal["failed", "killed"] | None) -> Outcome | None:
        """Save the results, end the MLflow run, and say how it went."""
        collector = Collector(self._loaded.experiment, plan, self._store)
        folder = self._store.root / "results" / self._loaded.experiment
        if status is not None:
            self._mirror.finish(folder, status)
            return None
        found = results(
            collector,
            question=self._loaded.spec.question,
            spec_hash=self._spec_hash,
            seeds=self._seeds,
            objectives=self._objectives,
        )
        found.save(folder)
        failed = any(row.status in ("failed", "blocked") for row in found.rows)
        self._mirror.finish(folder, "failed" if failed else "finished")
        return Outcome(self._loaded.experiment, found.rows, self._n_made, self._failures)

    def _note(self, note: Note, stage: Stage, text: str) -> None:
        self._n_made += note == "made"
        if note == "failed":
            self._failures[stage.fingerprint] = text
        self._watcher.note(note, stage, text)


def _say_waiting(_: str) -> None:
    log.info("another sweep runs this search; waiting for it")


def seeds_of(loaded: LoadedSpec, n_seeds: int | None) -> list[int]:
    """Return the seeds of a run: 0 to `n_seeds` - 1, or the spec's."""
    return loaded.spec.seeds if n_seeds is None else list(range(n_seeds))


def chosen(trials: list[Trial], only: Iterable[str]) -> list[Trial]:
    """Return the trials named, by trial or by group; all of them if none is.

    Raises:
        UnknownName: no trial has a name given.
    """
    names = list(only)
    known = {name for trial in trials for name in (trial.name, trial.group)}
    for name in names:
        if name not in known:
            raise UnknownName.among("trial", name, known)
    return [t for t in trials if not names or t.name in names or t.group in names]
