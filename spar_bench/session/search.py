"""Optuna as an adviser: it suggests each point of a search, and is told its score.

What is drawn depends on the trial's number, its key and earlier scores, so a search that was killed
continues as if it had not been. With several processes it depends on which was told first, too.
"""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from spar_bench.errors import SpecError
from spar_bench.plan.trials import Trial
from spar_bench.session.collect import Collector
from spar_bench.session.study import StudyPlace
from spar_bench.spec import LoadedSpec, Point, resolve_point
from spar_bench.spec.blocks import ChoicesSpec
from spar_bench.stage import canonical, digest
from spar_bench.store import Store

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Seconds between two looks at the last trials, which other processes make."""
VALUES, IMPOSSIBLE = "values", "impossible"
"""What a trial stores: the values drawn, and why they are incompatible if they are."""


@dataclass
class Asked:
    """One trial of a search: its point, and where to report its score."""

    point: Point
    trial: optuna.trial.Trial
    searcher: "Searcher"

    def prune_reason(self, epoch: int, loss: float) -> str:
        """Report a student's mean loss after an epoch to the pruner; only for the first seed.

        Returns why the student is given up if it lags behind the median of the others, else "".
        """
        search = self.searcher.search
        if not search.prune:
            return ""
        with self.searcher.locked():
            now = self.searcher.study.trials[self.trial.number]
            if now.state.is_finished():  # by another process, which has taken it over
                return ""
            known = now.intermediate_values
            if epoch not in known:
                [direction] = search.objectives.values()
                self.trial.report(-loss if direction == "maximize" else loss, epoch)
            # Also for an epoch that a killed attempt reported: it may have been the decisive one.
            is_lagging = self.trial.should_prune()
        if is_lagging:
            last = max(epoch, *known, 0)
            return f"pruned by the search after epoch {last}: its loss lags behind the others'"
        return ""

    def tell(self, collector: Collector) -> None:
        """Report the score of this point's trials to the study: their mean over seeds."""
        names, trials = self.searcher.objectives, collector.plan.trials
        scores = [score(collector, trial, names) for trial in trials]
        if all(scores):
            self.record([sum(s[name] for s in scores) / len(scores) for name in names])
            return
        failed = any(collector.trial_state(trial).status == "failed" for trial in trials)
        self.record(TrialState.FAIL if failed else TrialState.PRUNED)

    def record(self, ending: list[float] | TrialState) -> None:
        """Report the score for each objective, or how else the trial has ended.

        Nothing happens if another process has taken it over meanwhile, and reported it.
        """
        values, state = (ending, None) if isinstance(ending, list) else (None, ending)
        with self.searcher.locked():
            self.searcher.study.tell(self.trial, values, state, skip_if_finished=True)


class Searcher:
    """The points that a search has tried, and those that it suggests next.

    Any number of processes may search at once on one store: each is asked for trials of its own,
    under a lease, and those of one that was killed are taken over. `poll` is called while others
    are waited for, and may raise.
    """

    def __init__(
        self, loaded: LoadedSpec, store: Store, poll: Callable[[], None] = lambda: None
    ) -> None:
        assert loaded.search is not None, "only a spec with a search is searched"
        self.search, self._loaded, self._store = loaded.search, loaded, store
        self.objectives = list(loaded.search.objectives)
        self._place, self._poll = StudyPlace(_study_name(loaded), store), poll
        self._running, self._alive = set[int](), set[int]()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1)
            if self.search.prune
            else optuna.pruners.NopPruner()
        )
        with self.locked():
            self.study = self._place.create(list(self.search.objectives.values()), pruner)

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from the study."""
        return self._place.locked(self._poll)

    def past(self) -> list[Point]:
        """Return the points that have been tried by now, in order."""
        with self.locked():
            ended = [trial for trial in self.study.get_trials() if trial.state.is_finished()]
        return _points(self._loaded, ended)

    def __iter__(self) -> Generator[Asked]:
        """Ask for one point after another until all are tried; each must get its score."""
        with self.locked():
            for values in self.search.enqueue:
                labelled = {key: self._label(key, value) for key, value in values.items()}
                self.study.enqueue_trial(labelled, skip_if_exists=True)
        is_waiting = False
        while True:
            self._watch_others()
            with ExitStack() as claimed:
                asked = self._ask(claimed)
                if asked is not None:
                    yield asked
                    continue
            if not self._running:
                return
            if not is_waiting:
                log.info("the last trials are made by other sweeps; waiting for them")
            is_waiting = True
            self._poll()
            time.sleep(LOOK_S)

    def _watch_others(self) -> None:
        """Find out of each trial that was begun elsewhere whether it is made yet.

        So one that was killed is taken over before another is begun, and draws what it would have.
        """
        with self.locked():
            self._running = {t.number for t in self.study.get_trials(states=[TrialState.RUNNING])}
        for number in self._running - self._alive:
            if self._store.leases.is_alive(self._lease(number), poll=self._poll):
                self._alive.add(number)

    def _ask(self, claimed: ExitStack) -> Asked | None:
        """Return a trial that a kill interrupted, else a new one; None if none is left to begin.

        It is this process's until `claimed` is closed. An impossible draw, such as a stride over
        its window, is a trial of the budget, too.
        """
        with self.locked():
            while (trial := self._claim(claimed)) is not None:
                values = {key: self._suggest(trial, key) for key in self.search.space}
                try:
                    point = resolve_point(self._loaded, values)
                except SpecError as error:
                    trial.set_user_attr(IMPOSSIBLE, str(error))
                    self.study.tell(trial, state=TrialState.FAIL)
                    claimed.close()
                    continue
                trial.set_user_attr(VALUES, values)
                return Asked(point, trial, self)
        return None

    def _claim(self, claimed: ExitStack) -> optuna.trial.Trial | None:
        begun = [t for t in self.study.get_trials() if t.state != TrialState.WAITING]
        self._running = {t.number for t in begun if t.state == TrialState.RUNNING}
        for known in begun:
            if known.state == TrialState.RUNNING and self._hold(known.number, claimed):
                return optuna.trial.Trial(self.study, known._trial_id)
        if len(begun) >= self.search.trials:
            return None
        trial = self.study.ask()
        self._hold(trial.number, claimed)
        return trial

    def _hold(self, number: int, claimed: ExitStack) -> bool:
        """Take the lease of a trial, unless another process makes it."""
        return bool(claimed.enter_context(self._store.leases.hold_free([self._lease(number)])))

    def _lease(self, number: int) -> str:
        return f"trial-{self._place.name[:32]}-{number}"

    def _suggest(self, trial: optuna.trial.Trial, key: str) -> Any:
        # One sampler per value, so that a trial interrupted between two values ends up the same.
        self.study.sampler = self._sampler(trial.number, key)
        axis = self.search.space[key]
        if isinstance(axis, ChoicesSpec):
            labels = {_as_label(choice): choice for choice in axis.choices}
            return labels[trial.suggest_categorical(key, list(labels))]
        if axis.integer:
            step = int(axis.step or 1)
            return trial.suggest_int(key, int(axis.low), int(axis.high), step=step, log=axis.log)
        return trial.suggest_float(key, axis.low, axis.high, step=axis.step, log=axis.log)

    def _sampler(self, number: int, key: str) -> optuna.samplers.BaseSampler:
        seed = int(digest([self.search.seed, number, key])[:8], 16)
        if self.search.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        # What others try now counts as bad, so that not all of them try the same.
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def _label(self, key: str, value: Any) -> Any:
        return _as_label(value) if isinstance(self.search.space[key], ChoicesSpec) else value


def past_points(loaded: LoadedSpec, store: Store) -> list[Point]:
    """Return the points that a search has tried or is trying, in order; writes nothing.

    Raises:
        StoreError: the study is in a database that does not answer, or is not named.
    """
    study = StudyPlace(_study_name(loaded), store).load()
    return [] if study is None else _points(loaded, study.get_trials())


def _study_name(loaded: LoadedSpec) -> str:
    return digest(["study", loaded.spec_hash])


def score(collector: Collector, trial: Trial, objectives: Sequence[str]) -> dict[str, float]:
    """Return a trial's score for each objective; empty if one has no number yet.

    Accuracy and cost are means over data sets and resolutions of the trial's main method: its
    student, else its teacher, else the pretrained backbone.
    """
    rows = collector.rows(trial)
    main = [row for row in rows if row.method == rows[-1].method]
    found: dict[str, float | None] = {}
    for name in objectives:
        if name == "train_gflops":
            found[name] = main[0].training.train_gflops
        else:
            values = [row.miou if name == "miou" else getattr(row.cost, name) for row in main]
            known = [value for value in values if value is not None]
            found[name] = sum(known) / len(known) if len(known) == len(values) else None
    return {n: v for n, v in found.items() if v is not None} if None not in found.values() else {}


def _points(loaded: LoadedSpec, trials: list[optuna.trial.FrozenTrial]) -> list[Point]:
    drawn = [trial.user_attrs.get(VALUES) for trial in trials]
    return [resolve_point(loaded, values) for values in drawn if values is not None]


def _as_label(choice: Any) -> Any:
    """Return a choice in Optuna's form: a scalar as it is, anything else as JSON."""
    return choice if isinstance(choice, bool | int | float | str) else canonical(choice)
