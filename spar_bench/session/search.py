"""Optuna as an adviser: it suggests each point of a search, and is told its score.

The study is a journal in the store. What is drawn depends on the trial's number, its key and
earlier scores, so a search that was killed continues as if it had not been.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from spar_bench.errors import SpecError
from spar_bench.files import writing
from spar_bench.plan.trials import Trial
from spar_bench.session.collect import Collector
from spar_bench.spec import LoadedSpec, Point, resolve_point
from spar_bench.spec.blocks import ChoicesSpec, SearchSpec
from spar_bench.stage import canonical, digest
from spar_bench.store import Store

VALUES, IMPOSSIBLE = "values", "impossible"
"""What a trial stores: the values drawn, and why they are incompatible if they are."""


@dataclass
class Asked:
    """One trial of a search: its point, and where to report its score."""

    point: Point
    trial: optuna.trial.Trial
    study: optuna.study.Study
    search: SearchSpec

    def prune_reason(self, epoch: int, loss: float) -> str:
        """Report a student's mean loss after an epoch to the pruner; only for the first seed.

        Returns why the student is given up if it lags behind the median of the others, else "".
        """
        if not self.search.prune:
            return ""
        known = self.study.trials[self.trial.number].intermediate_values
        if epoch not in known:
            [direction] = self.search.objectives.values()
            self.trial.report(-loss if direction == "maximize" else loss, epoch)
        # Also for an epoch that a killed attempt reported: it may have been the decisive one.
        if self.trial.should_prune():
            last = max(epoch, *known, 0)
            return f"pruned by the search after epoch {last}: its loss lags behind the others'"
        return ""

    def tell(self, collector: Collector) -> None:
        """Report the score of this point's trials to the study: their mean over seeds."""
        trials = collector.plan.trials
        scores = [score(collector, trial, list(self.search.objectives)) for trial in trials]
        if all(scores):
            means = [sum(s[name] for s in scores) / len(scores) for name in self.search.objectives]
            self.study.tell(self.trial, means)
            return
        failed = any(collector.trial_state(trial).status == "failed" for trial in trials)
        self.study.tell(self.trial, state=TrialState.FAIL if failed else TrialState.PRUNED)


class Searcher:
    """The points that a search has tried, and those that it suggests next.

    Build and use it under the lock of its `study_name`: one process at a time writes a study;
    another that runs the same spec waits, then finds everything done.
    """

    def __init__(self, loaded: LoadedSpec, store: Store) -> None:
        assert loaded.search is not None, "only a spec with a search is searched"
        self.search, self._loaded = loaded.search, loaded
        self.objectives = list(loaded.search.objectives)
        path = _journal(loaded, store)
        with writing(path.parent):
            path.parent.mkdir(exist_ok=True)
            _cut_unfinished_line(path)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            study_name=study_name(loaded),
            storage=JournalStorage(_Journal(path)),
            directions=list(self.search.objectives.values()),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1)
            if self.search.prune
            else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )

    def past(self) -> list[Point]:
        """Return the points that were tried, in order."""
        return _points(self._loaded, _ended(self._study))

    @property
    def n_tried(self) -> int:
        """How many trials of the budget are used."""
        return len(_ended(self._study))

    def __iter__(self) -> Iterator[Asked]:
        """Ask for one point after another until the budget is used; each must get its score.

        An impossible draw, such as a stride over its window, counts too.
        """
        for values in self.search.enqueue:
            labelled = {key: self._label(key, value) for key, value in values.items()}
            self._study.enqueue_trial(labelled, skip_if_exists=True)
        while self.n_tried < self.search.trials:
            trial = self._next()
            values = {key: self._suggest(trial, key) for key in self.search.space}
            try:
                point = resolve_point(self._loaded, values)
            except SpecError as error:
                trial.set_user_attr(IMPOSSIBLE, str(error))
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            trial.set_user_attr(VALUES, values)
            yield Asked(point, trial, self._study, self.search)

    def _next(self) -> optuna.trial.Trial:
        """Return the trial that a kill interrupted, else a new one."""
        cut_short = self._study.get_trials(states=[TrialState.RUNNING])
        if cut_short:
            return optuna.trial.Trial(self._study, cut_short[0]._trial_id)
        return self._study.ask()

    def _suggest(self, trial: optuna.trial.Trial, key: str) -> Any:
        # One sampler per value, so that a trial interrupted between two values ends up the same.
        self._study.sampler = self._sampler(trial.number, key)
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
        return optuna.samplers.TPESampler(seed=seed)

    def _label(self, key: str, value: Any) -> Any:
        return _as_label(value) if isinstance(self.search.space[key], ChoicesSpec) else value


def study_name(loaded: LoadedSpec) -> str:
    """Return the name of a search's study and of its lock."""
    return digest(["study", loaded.spec_hash])


def past_points(loaded: LoadedSpec, store: Store) -> list[Point]:
    """Return the points that a search has tried or is trying, in order; writes nothing."""
    path = _journal(loaded, store)
    if not path.exists():
        return []
    try:
        study = optuna.load_study(
            study_name=study_name(loaded), storage=JournalStorage(_Journal(path))
        )
    except KeyError:  # killed before it started
        return []
    return _points(loaded, study.get_trials())


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


class _Journal(JournalFileBackend):  # type: ignore[misc]  # optuna's types are not read
    """Optuna's journal in a file; a full disk is reported in one line."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_Held())
        self._folder = path.parent

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append events to the file."""
        with writing(self._folder):
            super().append_logs(logs)


class _Held:
    """The journal's lock; the study's own file lock replaces it, which no kill leaves behind."""

    def acquire(self) -> bool:
        """Do nothing: the study's lock is held."""
        return True

    def release(self) -> None:
        """Do nothing: the study's lock is released later."""


def _journal(loaded: LoadedSpec, store: Store) -> Path:
    return store.root / "studies" / f"{study_name(loaded)}.journal"


def _cut_unfinished_line(path: Path) -> None:
    """Remove a partial line left by a kill: later lines would be unreadable."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _ended(study: optuna.study.Study) -> list[optuna.trial.FrozenTrial]:
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    return list(study.get_trials(states=states))


def _points(loaded: LoadedSpec, trials: list[optuna.trial.FrozenTrial]) -> list[Point]:
    drawn = [trial.user_attrs.get(VALUES) for trial in trials]
    return [resolve_point(loaded, values) for values in drawn if values is not None]


def _as_label(choice: Any) -> Any:
    """Return a choice in Optuna's form: a scalar as it is, anything else as JSON."""
    return choice if isinstance(choice, bool | int | float | str) else canonical(choice)
