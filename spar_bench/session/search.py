"""Optuna as an adviser: asked for each point of a search, told what it scored.

The study lies in the store as a journal. The sampler's seed depends on how many trials there are, so
a search that was killed goes on as if it had not been; one trial is one fingerprint.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from spar_bench.errors import SpecError
from spar_bench.plan.trials import Trial
from spar_bench.run.context import Pruned
from spar_bench.session.collect import Collector
from spar_bench.spec import LoadedSpec, Point, resolve_point
from spar_bench.spec.schema import ChoicesSpec, SearchSpec
from spar_bench.store import Store, canonical, digest

FAILED = "failed"
"""Marks a trial that failed by itself; one that a kill ended fails without it, and is asked again."""


@dataclass
class Asked:
    """One trial that a search asks for: its point, and where its score is told."""

    point: Point
    trial: optuna.trial.Trial
    study: optuna.study.Study
    search: SearchSpec

    def report(self, epoch: int, loss: float) -> None:
        """Tell the pruner a student's mean loss after an epoch.

        Raises:
            Pruned: it lags behind the median of the others.
        """
        known = self.study.trials[self.trial.number].intermediate_values
        if not self.search.prune or epoch in known:
            return
        [direction] = self.search.objectives.values()
        self.trial.report(-loss if direction == "maximize" else loss, epoch)
        if self.trial.should_prune():
            raise Pruned(
                f"pruned by the search after epoch {epoch}: its loss lags behind the others'"
            )

    def tell(self, collector: Collector) -> None:
        """Tell the study what the trials of this point scored: their mean over seeds."""
        trials = collector.plan.trials
        scores = [score(collector, trial, list(self.search.objectives)) for trial in trials]
        if all(scores):
            means = [sum(s[name] for s in scores) / len(scores) for name in self.search.objectives]
            self.study.tell(self.trial, means)
            return
        failed = any(collector.trial_state(trial).status == "failed" for trial in trials)
        if failed:
            self.trial.set_user_attr(FAILED, True)
        self.study.tell(self.trial, state=TrialState.FAIL if failed else TrialState.PRUNED)


class Searcher:
    """The points that a search has tried, and those that it asks for next.

    One process at a time holds a study; another that runs the same spec waits, then finds all done.
    """

    def __init__(self, loaded: LoadedSpec, store: Store) -> None:
        assert loaded.search is not None, "only a spec with a search is searched"
        self.search, self._loaded = loaded.search, loaded
        self.objectives = list(loaded.search.objectives)
        self.name = digest(["study", loaded.spec_hash])
        folder = store.root / "studies"
        folder.mkdir(exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            study_name=self.name,
            storage=JournalStorage(
                JournalFileBackend(str(folder / f"{self.name}.journal"), lock_obj=_Held())
            ),
            directions=list(self.search.objectives.values()),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1)
            if self.search.prune
            else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )

    def past(self) -> list[Point]:
        """Return the points that were tried, in order."""
        drawn = [trial.user_attrs.get("values") for trial in self._counted()]
        return [self._point(values) for values in drawn if values is not None]

    def __iter__(self) -> Iterator[Asked]:
        """Ask for one point after another until the budget is spent; each must be told of."""
        for trial in self._study.get_trials(states=[TrialState.RUNNING]):
            self._study.enqueue_trial(trial.params)
            self._study.tell(trial.number, state=TrialState.FAIL)
        for values in self.search.enqueue:
            labelled = {key: self._label(key, value) for key, value in values.items()}
            self._study.enqueue_trial(labelled, skip_if_exists=True)
        while len(self._counted()) < self.search.trials:
            # A sampler of its own for each trial: the same points, however often we start again.
            self._study.sampler = self._sampler(len(self._study.trials))
            trial = self._study.ask()
            values = {key: self._suggest(trial, key) for key in self.search.space}
            try:
                point = self._point(values)
            except SpecError as error:
                # A draw may be impossible, such as a stride over its window: the search goes on.
                trial.set_user_attr(FAILED, str(error))
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            trial.set_user_attr("values", values)
            yield Asked(point, trial, self._study, self.search)

    def _counted(self) -> list[optuna.trial.FrozenTrial]:
        """Return the trials that ended by themselves; one that a kill ended is asked for again."""
        ended = self._study.get_trials(
            states=[TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
        )
        return [t for t in ended if t.state != TrialState.FAIL or FAILED in t.user_attrs]

    def _point(self, values: dict[str, Any]) -> Point:
        return resolve_point(self._loaded, values)

    def _sampler(self, n_trials: int) -> optuna.samplers.BaseSampler:
        seed = self.search.seed + n_trials
        if self.search.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed)

    def _suggest(self, trial: optuna.trial.Trial, key: str) -> Any:
        axis = self.search.space[key]
        if isinstance(axis, ChoicesSpec):
            labels = {_as_label(choice): choice for choice in axis.choices}
            return labels[trial.suggest_categorical(key, list(labels))]
        if axis.integer:
            step = int(axis.step or 1)
            return trial.suggest_int(key, int(axis.low), int(axis.high), step=step, log=axis.log)
        return trial.suggest_float(key, axis.low, axis.high, step=axis.step, log=axis.log)

    def _label(self, key: str, value: Any) -> Any:
        return _as_label(value) if isinstance(self.search.space[key], ChoicesSpec) else value


def score(collector: Collector, trial: Trial, objectives: list[str]) -> dict[str, float]:
    """Return what a trial scored by each objective; empty where one has no number yet.

    Accuracy and cost are means over data sets and resolutions of the trial's main method: its student,
    else its teacher, else the pretrained backbone.
    """
    rows = collector.rows(trial)
    main = [row for row in rows if row.method == rows[-1].method]
    found: dict[str, float | None] = {}
    for name in objectives:
        if name == "train_gflops":
            found[name] = collector.train_gflops(trial)
        else:
            values = [row.miou if name == "miou" else getattr(row.cost, name) for row in main]
            known = [value for value in values if value is not None]
            found[name] = sum(known) / len(known) if len(known) == len(values) else None
    return {n: v for n, v in found.items() if v is not None} if None not in found.values() else {}


class _Held:
    """The journal's lock, which the study's own file lock stands for: a kill leaves none behind."""

    def acquire(self) -> bool:
        """Do nothing: it is held."""
        return True

    def release(self) -> None:
        """Do nothing: it is let go when the study's lock is."""


def _as_label(choice: Any) -> Any:
    """Return a choice as Optuna takes it: a scalar as it is, anything else as JSON."""
    return choice if isinstance(choice, bool | int | float | str) else canonical(choice)
