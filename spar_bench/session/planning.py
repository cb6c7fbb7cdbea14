"""What a sweep would do and how long it would take, and how far it has come; no torch."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from spar_bench.conflicts import read_spec, read_specs
from spar_bench.engine.simulation import Simulated, simulate
from spar_bench.errors import naming
from spar_bench.opening import open_store
from spar_bench.plan.devices import STARTUP_S, Speed, assumed_speed
from spar_bench.plan.making import make_plan
from spar_bench.plan.suite import SuitePlan
from spar_bench.plan.trials import Plan, Trial
from spar_bench.resolve import Resolver
from spar_bench.results import RESULTS_FILE, Status
from spar_bench.session.collect import Collector
from spar_bench.session.readiness import missing, remarks, require_ready
from spar_bench.session.selection import (
    points_so_far,
    require_unedited,
    seeds_so_far,
    select_trials,
    stages_after_trials,
    stages_of_trials,
    time_only,
)
from spar_bench.spec import LoadedSpec
from spar_bench.spec.read import experiment_name
from spar_bench.stage import Damaged
from spar_bench.stages import latency, student
from spar_bench.stages.base import Estimate, Stage
from spar_bench.store import DEFAULT_ROOT, Store


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a plan: its state, how many trials share it, and what it will take.

    `title` tells it from all others. `to_do` says whether a sweep would make it, i.e. it is
    not finished and has not failed for good; `seconds` is 0 if it would not.
    """

    stage: Stage
    title: str
    status: Status
    to_do: bool
    n_trials: int
    estimate: Estimate
    seconds: float


@dataclass(frozen=True)
class PlanView:
    """What a sweep would do now; `lacking` has a line for each of weights and data that is missing.

    `name` and `question` are those of the experiment or suite, `n_searched` is how many trials its
    searches ask for. `plan` has everything; its session is that of a suite's grids. `stages` are
    those of the selected trials, by kind.
    """

    name: str
    question: str
    n_searched: int
    plan: Plan
    stages: list[PlannedStage]
    speed: Speed
    lacking: list[str]
    remarks: list[str]

    @property
    def missing(self) -> list[PlannedStage]:
        """The stages that a sweep would make."""
        return [stage for stage in self.stages if stage.to_do]

    @property
    def gflops(self) -> float:
        """Floating-point operations of the missing stages, in units of 1e9."""
        return sum(self._gflops(batch) for batch in self._batches())

    @property
    def seconds(self) -> float:
        """Time that the missing stages will take, start-up included."""
        batches = [[planned.stage for planned in batch] for batch in self._batches()]
        return (STARTUP_S if batches else 0.0) + sum(
            self.speed.seconds(batch, self.plan.stages) for batch in batches
        )

    def simulated(self, n_workers: int) -> Simulated:
        """Return how the missing stages go on a number of workers of the assumed speed."""
        to_do = {planned.stage.fingerprint for planned in self.missing}
        return simulate(self.plan, to_do, self.speed, n_workers)

    @property
    def frozen(self) -> list[tuple[int, student.FrozenWork]]:
        """Missing students that share frozen blocks whose results are kept: how many, and what."""
        found = list[tuple[int, student.FrozenWork]]()
        for batch in self._batches():
            first = batch[0].stage
            if isinstance(first, student.Stage) and first.settings.reads_again:
                work = student.frozen_of([one.stage for one in batch], self.plan.stages)
                found += [(len(batch), work)] if work.n_bytes else []
        return found

    def _gflops(self, batch: list[PlannedStage]) -> float:
        stages = [planned.stage for planned in batch]
        return stages[0].gflops_of_batch(stages, self.plan.stages)

    def _batches(self) -> Iterable[list[PlannedStage]]:
        """Return the missing stages, those that are made together in one list."""
        batches: dict[str, list[PlannedStage]] = {}
        for planned in self.missing:
            batches.setdefault(planned.stage.batch_key, []).append(planned)
        return batches.values()


@dataclass(frozen=True)
class Standing:
    """Progress of an experiment: trials by status, and why some failed.

    `to_do` says what is to do besides the trials that are: kinds of stages, or `results`, which a
    sweep writes at its end. What a suite's session has timed is not to do.
    """

    loaded: LoadedSpec
    n_trials: dict[Status, int]
    failures: dict[str, str]
    to_do: list[str]


def plan_sweep(
    path: str | Path,
    *,
    store: str | Path = DEFAULT_ROOT,
    seeds: list[int] | None = None,
    only: str | Iterable[str] = (),
    device: str | None = None,
) -> PlanView:
    """Return what a sweep of a spec file or folder would do, and about how long it would take.

    A search is planned for the points that it has tried and begins with; later ones are not known.
    Where weights or data are missing, their data files' sizes and counts are taken.

    Args:
        path: The spec, or a suite's folder.
        store: Folder of the store.
        seeds: Instead of the spec's.
        only: Trials or groups to which the plan is limited.
        device: Which device's speed to assume; default: that of the one that this host used last.

    Raises:
        SpecError: the spec, or a data file that it names, has mistakes; one line each.
        NotReady: a backbone of unknown sizes is missing.
        UnknownName: no trial has a name of `only`, or no device that of `device`.
    """
    specs, opened = read_specs(path), open_store(store, make=False)
    resolver = Resolver(provisional=True)
    lacking = [line for loaded in specs for line in missing(loaded, resolver)]
    plans = [one.whole for one in lay_out(specs, opened, resolver, seeds=seeds, only=only)]
    speed = assumed_speed(opened.finished(), device)
    return PlanView(
        name=experiment_name(Path(path)),
        question=specs[0].spec.question if len(specs) == 1 else f"{len(specs)} experiments",
        n_searched=sum(loaded.search.trials for loaded in specs if loaded.search),
        plan=_together(plans),
        stages=_planned([Collector("", each, opened) for each in plans], speed),
        speed=speed,
        lacking=list(dict.fromkeys(resolver.missing + lacking)),
        remarks=remarks((one.settings for plan in plans for one in plan.trials), resolver),
    )


def _together(plans: list[Plan]) -> Plan:
    """Return everything of plans as one; its session is that of the first."""
    if len(plans) == 1:
        return plans[0]
    return Plan(
        trials=[trial for plan in plans for trial in plan.trials],
        stages={key: stage for plan in plans for key, stage in plan.stages.items()},
        costs=[line for plan in plans for line in plan.costs],
        sizes=[line for plan in plans for line in plan.sizes],
        latency=plans[0].latency,
    )


def _planned(collectors: list[Collector], speed: Speed) -> list[PlannedStage]:
    """Return the stages of plans with what each will take, those of a kind together.

    A stage of several plans is there once, and is to do if one of them makes it.
    """
    found = dict[str, PlannedStage]()
    for collector in collectors:
        for planned in _of_plan(collector, speed):
            key = planned.stage.fingerprint
            before = found.get(key, planned)
            first = before if before.to_do or not planned.to_do else planned
            n_trials = planned.n_trials + (before.n_trials if key in found else 0)
            found[key] = replace(first, n_trials=n_trials)
    alike = Counter(planned.stage.title for planned in found.values())
    stages = [
        planned if alike[planned.stage.title] > 1 else replace(planned, title=planned.stage.title)
        for planned in found.values()
    ]
    kinds = list(dict.fromkeys(planned.stage.kind for planned in stages))
    return sorted(stages, key=lambda planned: kinds.index(planned.stage.kind))


def _of_plan(collector: Collector, speed: Speed) -> Iterator[PlannedStage]:
    """Yield the stages of a plan, each titled with its first trial."""
    plan = collector.plan
    trials = plan.trials_by_stage()
    asked = stages_of_trials(plan, plan.trials)
    for fingerprint in (key for key in plan.stages if key in asked):
        stage, state = plan.stages[fingerprint], collector.state(fingerprint)
        expected, first = stage.estimate(plan.stages), trials[fingerprint][0]
        to_do = state.status != "finished" and not state.final
        yield PlannedStage(
            stage=stage,
            title=f"{stage.title} ({first.name})",
            status=state.status,
            to_do=to_do,
            n_trials=len(trials[fingerprint]),
            estimate=expected,
            seconds=speed.seconds([stage], plan.stages) if to_do else 0.0,
        )


def lay_out(
    specs: list[LoadedSpec],
    store: Store,
    resolver: Resolver,
    *,
    seeds: list[int] | None = None,
    only: str | Iterable[str] = (),
) -> list[SuitePlan]:
    """Return what a sweep of specs makes: all grids as one, then each search.

    Timings are those of the machine where they were last made. `seeds` are by default each spec's;
    the wholes have the trials of `only` alone, and one without any is left out.

    Raises:
        UnknownName: no trial has a name of `only`.
        StoreError: a plug-in that made a finished stage was edited under its VERSION.
    """
    plans = {
        loaded.experiment: make_plan(
            points_so_far(loaded, store),
            seeds or loaded.spec.seeds,
            None,
            resolver=resolver,
            keep_pruned=loaded.prunes,
        )
        for loaded in specs
    }
    searches = [loaded.experiment for loaded in specs if loaded.search]
    grids = {name: plan for name, plan in plans.items() if name not in searches}
    several = len(specs) > 1
    suites = [SuitePlan(grids, one_of_several=several)] if grids else []
    suites += [SuitePlan({name: plans[name]}, one_of_several=several) for name in searches]
    asked = select_trials([trial for one in suites for trial in one.whole.trials], only)
    names = {trial.name for trial in asked}
    for suite in suites:
        _select(suite, [trial for trial in suite.whole.trials if trial.name in names], store)
    return [suite for suite in suites if suite.whole.trials]


def _select(suite: SuitePlan, trials: list[Trial], store: Store) -> None:
    """Limit a whole to some of its trials, timed where the same was timed last."""
    plan = suite.whole
    _time_where_last(plan, store)
    time_only(plan, trials, store)
    _time_where_last(plan, store)
    suite.share_timings()
    plan.trials = trials
    require_unedited(plan, trials, store)


def _time_where_last(plan: Plan, store: Store) -> None:
    """Let a plan's timings be those of the machine where the same was last timed, if any."""
    if plan.latency is None:
        return
    timed = plan.stages[plan.latency].settings.model_dump(mode="json")["timed"]
    sessions = [
        stage.manifest
        for stage in store.finished("latency")
        if stage.manifest["settings"]["timed"] == timed
    ]
    if sessions:
        newest = max(sessions, key=lambda manifest: manifest["made"]["ended_ms"])
        plan.time_on(latency.Machine(**newest["settings"]["machine"]))


def standing(path: Path, *, store: Path = DEFAULT_ROOT) -> Standing:
    """Return the progress of a spec file's experiment, according to the store.

    Raises:
        SpecError, NotReady: as `plan_sweep`; each line begins with the spec's path.
        StoreError: the store or its record of the seeds cannot be read.
    """
    opened = open_store(store, make=False)
    with naming(path):
        loaded = read_spec(path)
        resolver = Resolver()
        require_ready(loaded, resolver)
        [suite] = lay_out([loaded], opened, resolver, seeds=seeds_so_far(loaded, opened))
        plan = suite.whole
    collector = Collector(loaded.experiment, plan, opened)
    counts: dict[Status, int] = {}
    failures = {}
    for trial in plan.trials:
        state = collector.trial_state(trial)
        counts[state.status] = counts.get(state.status, 0) + 1
        if state.status == "failed":
            failures[trial.name] = state.reason
    return Standing(loaded, counts, failures, _besides_trials(collector))


def _besides_trials(collector: Collector) -> list[str]:
    """Return what is to do though no trial's status shows it: costs, timings and results."""
    plan = collector.plan
    priced = {row.cost for trial in plan.trials for row in trial.rows}
    stages = {
        key: collector.state(key)
        for key in priced | stages_after_trials(plan, plan.trials, timed=True)
    }
    left = {
        plan.stages[key].kind
        for key, state in stages.items()
        if state.status != "finished" and not state.final
    }
    if "latency" in left and _is_timed(plan, collector.store):
        left.remove("latency")
    results = collector.store.results / collector.experiment / RESULTS_FILE
    return sorted(left) + ([] if results.exists() else ["results"])


def _is_timed(plan: Plan, store: Store) -> bool:
    """Return whether a session, such as a suite's, has timed all that a plan has timed."""
    timed = plan.session.settings.timed.keys()
    for stage in store.finished("latency"):
        manifest = stage.manifest
        if manifest["version"] == latency.VERSION and timed <= manifest["settings"]["timed"].keys():
            with suppress(Damaged):
                return store.find_by_fingerprint(stage.fingerprint) is not None
    return False
