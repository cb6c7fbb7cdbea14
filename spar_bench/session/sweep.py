"""Run an experiment: plan it, make what is missing, mirror it to MLflow, return its results."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from spar_bench import registry, track
from spar_bench.backends.base import Backend, Setup
from spar_bench.conflicts import read_spec
from spar_bench.engine.events import Emit, Event
from spar_bench.engine.scheduler import Outcome as StageOutcome
from spar_bench.engine.scheduler import Scheduler
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.errors import SparBenchError
from spar_bench.plan.trials import Plan, Trial, make_plan
from spar_bench.processes import n_processes
from spar_bench.results import Results, Row
from spar_bench.run.context import Context, Pruned, machine, prepare_device, resolve_workers
from spar_bench.run.distributed import joined, own_device
from spar_bench.run.work import Worker
from spar_bench.session.collect import Collector
from spar_bench.session.mirror import LiveMirror
from spar_bench.session.readiness import ready_remarks
from spar_bench.session.results import results
from spar_bench.session.search import Searcher, score, study_name
from spar_bench.session.selection import (
    note_sweep,
    require_unedited,
    seeds_of,
    select_trials,
    stages_after_trials,
    stages_of_trials,
    time_only,
)
from spar_bench.spec import LoadedSpec, Point
from spar_bench.stage import digest
from spar_bench.stages.base import Stage
from spar_bench.store import DEFAULT_ROOT, Store

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Receives the progress of a sweep."""

    def planned(self, plan: Plan, store: Store) -> None:
        """Receive the plan, again whenever a search adds to it."""
        ...

    def note(self, event: Event, stage: Stage) -> None:
        """Learn what happened to a stage."""
        ...


class Silent:
    """A watcher that ignores everything."""

    def planned(self, plan: Plan, store: Store) -> None:
        """Do nothing."""

    def note(self, event: Event, stage: Stage) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep runs; none of it affects a number.

    `n_seeds` overrides the spec's seeds by 0, 1, ...; `only` names trials; `tracking_uri` is an
    MLflow URI, by default the environment's, then `mlflow.db` in the working directory; `workers`
    processes render distillation images in advance, by default some with a GPU. `retime` measures
    latency though it was measured, as on a loaded machine. `devices` each get a worker process that
    makes stages beside the others, or `jobs` on one device do; `backend` names another way to make
    them.
    """

    store: str | Path = DEFAULT_ROOT
    tracking_uri: str | None = None
    device: str = "auto"
    threads: int | None = None
    n_seeds: int | None = None
    only: str | tuple[str, ...] = ()
    retry: bool = False
    retime: bool = False
    fail_fast: bool = False
    workers: int | None = None
    devices: tuple[str, ...] = ()
    jobs: int = 1
    backend: str | None = None

    def __post_init__(self) -> None:
        """Refuse counts that are too low.

        Raises:
            ValueError: a count is too low.
        """
        for name, least in (("n_seeds", 1), ("threads", 1), ("workers", 0), ("jobs", 1)):
            count = getattr(self, name)
            if count is not None and count < least:
                raise ValueError(
                    f"Options: {name}: must be at least {least}, but got {count}; leave it out for "
                    "the default"
                )


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: its rows, how many stages it made now, and what failed, by fingerprint.

    A failure is the stage's kind and the reason; those of earlier sweeps that were not tried again
    are among them.
    """

    experiment: str
    rows: list[Row]
    n_made: int
    failures: dict[str, tuple[str, str]]

    @property
    def unfinished(self) -> list[Row]:
        """The rows without a number."""
        return [row for row in self.rows if row.status != "finished"]

    @property
    def trials(self) -> dict[str, bool]:
        """Whether all rows of a trial have a number, by trial name."""
        lacking = {row.trial for row in self.unfinished}
        return {row.trial: row.trial not in lacking for row in self.rows}


def sweep(
    path: str | Path,
    options: Options | None = None,
    *,
    watcher: Watcher | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Run the experiment of a spec file; finished work is not repeated.

    Raises:
        SpecError: the spec has mistakes.
        NotReady: weights or data are missing, or the device is not available.
        StoreError: the store cannot be used, or a plug-in of this package that made a stage of it
            was edited under its VERSION.
        Interrupted: `stop` was set; the same call resumes from there.
    """
    loaded = read_spec(path)
    running = _Sweep(loaded, options or Options(), watcher or Silent(), stop or threading.Event())
    context = running.context
    in_use = context.store.in_use(on_wait=_say_store_waits, poll=context.check)
    with joined(context.device) as context.ranks, in_use:
        return running.run()


def _prepared_device(options: Options) -> torch.device:
    """Return the device of what no worker makes: the first of those named, which must all be there.

    Raises:
        NotReady: one is not.
    """
    named = options.devices or (own_device(options.device),)
    first, *_ = [prepare_device(name, options.threads) for name in named]
    return first


class _Sweep:
    """One run of an experiment."""

    def __init__(
        self, loaded: LoadedSpec, options: Options, watcher: Watcher, stop: threading.Event
    ) -> None:
        if loaded.search and options.only:
            raise SparBenchError(
                "only: must be left out where a search asks for its trials one by one, but is "
                "given; leave it out"
            )
        for line in ready_remarks(loaded):
            log.warning("%s", line)
        device = _prepared_device(options)
        self._loaded, self._options, self._watcher = loaded, options, watcher
        self._seeds = seeds_of(loaded, options.n_seeds)
        self._store = Store(Path(options.store))
        self.context = Context(
            self._store,
            device,
            stop=stop,
            workers=resolve_workers(options.workers, device),
        )
        self._machine = machine(device)
        self._spec_hash = digest([loaded.spec_hash, self._seeds])
        self._mirror = LiveMirror(
            track.tracking_uri(options.tracking_uri),
            self._store,
            track.SweepRecord(
                experiment=loaded.experiment,
                spec_hash=self._spec_hash,
                question=loaded.spec.question,
                params={"seeds": self._seeds},
                started_ms=time.time_ns() // 1_000_000,
            ),
        )
        self._objectives: dict[str, dict[str, float]] = {}
        self._failures: dict[str, tuple[str, str]] = {}
        self._outcomes: dict[str, StageOutcome] = {}
        self._reasons: dict[str, str] = {}
        self._n_made = 0
        self._prune: Callable[[int, float], str] = _keep
        self.context.prune = self._raise_pruned

    def run(self) -> Outcome:
        """Run all trials, then time everything in one session."""
        with closing(self._open_backend()) as self._backend:
            return self._run()

    def _run(self) -> Outcome:
        plan = Plan() if self._loaded.search else self._plan(self._loaded.points)
        trials = select_trials(plan.trials, self._options.only)
        left_out = note_sweep(self._loaded, self._store, self._seeds)
        if left_out:
            log.info("seeds of earlier sweeps are not in the results now: %s", left_out)
        try:
            if self._loaded.search:
                plan = self._search()
            else:
                self._execute(plan, trials, timed=True)
            return self._finish(plan)
        except BaseException:
            self._mirror.interrupt()
            raise

    def _raise_pruned(self, epoch: int, loss: float) -> None:
        reason = self._prune(epoch, loss)
        if reason:
            raise Pruned(reason)

    def _search(self) -> Plan:
        """Ask for one trial after another; all are timed at the end, in one session."""
        with self._store.lock(
            [study_name(self._loaded)], on_wait=_say_waiting, poll=self.context.check
        ):
            searcher = Searcher(self._loaded, self._store)
            points = searcher.past()
            for asked in searcher:
                points.append(asked.point)
                log.info(
                    "trial %d of %d: %s",
                    searcher.n_tried + 1,
                    searcher.search.trials,
                    asked.point.group,
                )
                plan = self._plan([asked.point])
                self._prune = asked.prune_reason
                self._execute(plan, plan.trials, timed="latency_p50_ms" in searcher.objectives)
                self._prune = _keep
                asked.tell(Collector(self._loaded.experiment, plan, self._store))
                if self._options.fail_fast and self._failures:
                    break
            plan = self._plan({point.group: point for point in points}.values())
            self._execute(plan, plan.trials, timed=True)
        collector = Collector(self._loaded.experiment, plan, self._store)
        scored = {t.name: score(collector, t, searcher.objectives) for t in plan.trials}
        self._objectives = {name: found for name, found in scored.items() if found}
        return plan

    def _plan(self, points: Iterable[Point]) -> Plan:
        plan = make_plan(points, self._seeds, self._machine, keep_pruned=self._loaded.prunes)
        trials = select_trials(plan.trials, self._options.only)
        time_only(plan, trials, self._store)
        require_unedited(plan, trials, self._store)
        self._watcher.planned(plan, self._store)
        return plan

    def _execute(self, plan: Plan, trials: list[Trial], *, timed: bool) -> None:
        """Make the stages of trials; show each trial when it ends, though not timed yet."""
        retries = Retries(retry=self._options.retry, keep_pruned=plan.keep_pruned)
        self._backend.use(WorkPlan(plan.stages, retries))
        scheduler = Scheduler(
            plan,
            self._store,
            self._backend,
            stages_of_trials(plan, trials, timed=timed),
            notify=self._note(plan),
            retries=retries,
            check=self.context.check,
            fail_fast=self._options.fail_fast,
            outcomes=self._outcomes,
            reasons=self._reasons,
        )
        left = {trial.name: {f for row in trial.rows for f in row.stages} for trial in trials}
        waiting: dict[str, list[Trial]] = {}
        for trial in trials:
            for fingerprint in left[trial.name]:
                waiting.setdefault(fingerprint, []).append(trial)

        def ended(fingerprint: str) -> None:
            for trial in waiting[fingerprint]:
                left[trial.name].discard(fingerprint)
                if not left[trial.name] and self._is_new(plan, trial):
                    self._mirror.show(self._results(plan, [trial]))

        scheduler.make(waiting, ended=ended)
        if self._options.retime and timed and plan.latency and plan.latency not in self._outcomes:
            self._store.discard(plan.latency)
        scheduler.make(stages_after_trials(plan, trials, timed=timed))

    def _is_new(self, plan: Plan, trial: Trial) -> bool:
        """Return whether this sweep made anything of a trial, or failed to."""
        return any(self._outcomes.get(key, "found") != "found" for key in plan.of_trial(trial))

    def _finish(self, plan: Plan) -> Outcome:
        """Save the results, end the MLflow run, and return the outcome."""
        found = self._results(plan)
        found.save(self._store.root / "results" / self._loaded.experiment)
        self._mirror.end(found)
        return Outcome(self._loaded.experiment, found.rows, self._n_made, self._failures)

    def _results(self, plan: Plan, trials: list[Trial] | None = None) -> Results:
        return results(
            Collector(self._loaded.experiment, plan, self._store),
            self._loaded,
            spec_hash=self._spec_hash,
            seeds=self._seeds,
            objectives=self._objectives,
            trials=trials,
        )

    def _open_backend(self) -> Backend:
        """Return what makes stages: this process, or a worker process a device or job."""
        options = self._options
        devices = options.devices or (options.device,) * options.jobs
        name = options.backend or ("in_process" if len(devices) == 1 else "subprocesses")
        if n_processes() > 1 and name != "in_process":
            raise SparBenchError(
                "--devices, --jobs: must be left out where processes train a student together, but "
                "are given; drop them, or torchrun"
            )
        threads = options.threads
        if threads is None and options.jobs > 1:
            threads = max(1, self._machine.threads // options.jobs)
        setup = Setup(
            store=self._store,
            devices=devices,
            threads=threads,
            workers=options.workers,
            make=lambda plan, batch, emit: Worker(plan, self.context).make(batch, emit),
            check=self.context.check,
            prune=lambda epoch, loss: self._prune(epoch, loss),
        )
        backend: Backend = registry.load("backends", name)(setup)
        return backend

    def _note(self, plan: Plan) -> Emit:
        def note(event: Event) -> None:
            stage = plan.stages[event.fingerprint]
            self._n_made += event.kind == "made"
            if event.kind == "failed":
                self._failures[stage.fingerprint] = stage.kind, event.text
            self._watcher.note(event, stage)

        return note


def _keep(epoch: int, loss: float) -> str:
    """Give up no student."""
    return ""


def _say_store_waits(_: str) -> None:
    log.info("another process starts on this store or cleans it up; waiting for it")


def _say_waiting(_: str) -> None:
    log.info("another sweep runs this search; waiting for it")
