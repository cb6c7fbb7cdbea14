"""Look at experiments without running anything: plans, progress, provenance; no torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spar_bench.errors import NotReady, StoreError, UnknownName, naming
from spar_bench.near import nearest
from spar_bench.plan.estimate import DEFAULT_GFLOPS_PER_S, speeds
from spar_bench.plan.trials import Plan, make_plan
from spar_bench.resolve import Resolver
from spar_bench.results import RESULTS_FILE, Results, Row, Status
from spar_bench.session.choice import chosen, known_points, known_seeds, made_last, wanted
from spar_bench.session.collect import Collector
from spar_bench.session.ready import require_ready
from spar_bench.session.remarks import remarks
from spar_bench.spec import LoadedSpec, read_spec
from spar_bench.stage import Finished
from spar_bench.stages import latency
from spar_bench.stages.base import Estimate, Stage
from spar_bench.store import DEFAULT_ROOT, Store


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a plan: its state, how many trials share it, and what it will take.

    `to_do` says whether a sweep would make it, i.e. it is not finished and has not failed for good.
    `seconds` is 0 if it would not.
    """

    stage: Stage
    status: Status
    to_do: bool
    n_trials: int
    estimate: Estimate
    seconds: float


@dataclass(frozen=True)
class PlanView:
    """What a sweep would do now."""

    loaded: LoadedSpec
    plan: Plan
    stages: list[PlannedStage]
    measured: bool
    remarks: list[str]

    @property
    def missing(self) -> list[PlannedStage]:
        """The stages that a sweep would make."""
        return [stage for stage in self.stages if stage.to_do]

    @property
    def seconds(self) -> float:
        """Time that the missing stages will take; windows that evaluations share count once."""
        longest: dict[str, float] = {}
        for one in self.missing:
            key = one.stage.batch_key
            longest[key] = max(longest.get(key, 0.0), one.seconds)
        return sum(longest.values())


@dataclass(frozen=True)
class Standing:
    """Progress of an experiment: trials by status, and why some failed.

    `to_do` says what a sweep would do besides the trials that are to do: kinds of stages, or
    `results`, which it writes at its end.
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
) -> PlanView:
    """Return what a sweep of a spec file would do, and about how long it would take.

    A search is planned for the points that it has tried and those that it begins with; later ones
    are not known yet.

    Raises:
        SpecError: the spec, or a data file that it names, has mistakes; one line each.
        NotReady: weights or data are missing; one line each.
        UnknownName: no trial has a name of `only`.
    """
    loaded = read_spec(path)
    resolver = Resolver()
    require_ready(loaded, resolver)
    opened = Store(Path(store), make=False)
    laid_out = lay_out(loaded, opened, seeds or loaded.spec.seeds, resolver)
    laid_out.trials = chosen(laid_out.trials, only)
    asked = wanted(laid_out, laid_out.trials)
    collector = Collector(loaded.experiment, laid_out, opened)
    measured, trials = speeds(opened.finished()), laid_out.trials_by_stage()
    stages = [
        _planned(
            collector,
            stage,
            n_trials=len(trials[fingerprint]),
            gflops_per_s=measured.get(stage.kind, DEFAULT_GFLOPS_PER_S),
        )
        for fingerprint, stage in laid_out.stages.items()
        if fingerprint in asked
    ]
    said = remarks((trial.settings for trial in laid_out.trials), resolver)
    return PlanView(loaded, laid_out, stages, bool(measured), said)


def _planned(
    collector: Collector, stage: Stage, *, n_trials: int, gflops_per_s: float
) -> PlannedStage:
    state, expected = collector.state(stage.fingerprint), stage.estimate(collector.plan.stages)
    to_do = state.status != "finished" and not state.final
    return PlannedStage(
        stage=stage,
        status=state.status,
        to_do=to_do,
        n_trials=n_trials,
        estimate=expected,
        seconds=expected.gflops / gflops_per_s if to_do else 0.0,
    )


def lay_out(loaded: LoadedSpec, store: Store, seeds: list[int], resolver: Resolver) -> Plan:
    """Return the plan of a spec, with timings from the machine where they were last made."""
    points = known_points(loaded, store)
    plan = make_plan(points, seeds, None, resolver=resolver, keep_pruned=loaded.prunes)
    if plan.latency is None:
        return plan
    timed = plan.stages[plan.latency].settings.model_dump(mode="json")["timed"]
    sessions = [
        stage
        for stage in store.finished()
        if stage.kind == "latency" and stage.manifest["settings"]["timed"] == timed
    ]
    if sessions:
        newest = max(sessions, key=lambda stage: stage.manifest["made"]["ended_ms"])
        plan.time_on(latency.Machine(**newest.manifest["settings"]["machine"]))
    return plan


def standing(path: Path, *, store: Path = DEFAULT_ROOT) -> Standing:
    """Return the progress of a spec file's experiment, according to the store.

    Raises:
        SpecError, NotReady: as `plan_sweep`; each line begins with the spec's path.
        StoreError: the store or its record of the seeds cannot be read.
    """
    opened = Store(store, make=False)
    with naming(path):
        loaded = read_spec(path)
        resolver = Resolver()
        require_ready(loaded, resolver)
        laid_out = lay_out(loaded, opened, known_seeds(loaded, opened), resolver)
    collector = Collector(loaded.experiment, laid_out, opened)
    counts: dict[Status, int] = {}
    failures = {}
    for trial in laid_out.trials:
        state = collector.trial_state(trial)
        counts[state.status] = counts.get(state.status, 0) + 1
        if state.status == "failed":
            failures[trial.name] = state.reason
    return Standing(loaded, counts, failures, _besides_trials(collector))


def _besides_trials(collector: Collector) -> list[str]:
    """Return what is to do though no trial's status shows it: costs, timings and results."""
    plan = collector.plan
    priced = {row.cost for trial in plan.trials for row in trial.rows}
    stages = {key: collector.state(key) for key in priced | made_last(plan, timed=True)}
    left = {
        plan.stages[key].kind
        for key, state in stages.items()
        if state.status != "finished" and not state.final
    }
    results = collector.store.root / "results" / collector.experiment / RESULTS_FILE
    return sorted(left) + ([] if results.exists() else ["results"])


@dataclass(frozen=True)
class Explained:
    """A row of a finished sweep, and the manifests of the stages that its numbers come from."""

    row: Row
    stages: dict[str, Finished]


def explain(name: str, *, store: Path = DEFAULT_ROOT) -> list[Explained]:
    """Return the provenance of every number of a trial.

    Args:
        name: A trial or group; prefixed by experiment and slash if two experiments have that name.
        store: Folder of the store.

    Raises:
        UnknownName: no finished sweep has a trial of that name, or several have.
        StoreError: the rows of a sweep that may contain it cannot be read.
    """
    opened = Store(store, make=False)
    rows, damaged = _rows(opened)
    if not rows and not damaged:
        raise NotReady(
            f"{opened.root}: must hold a finished sweep, but holds none; run `spar-bench sweep` on "
            "a spec first"
        )
    found = [row for row in rows if name in _names(row)]
    if not found and damaged:
        raise StoreError("\n".join(damaged))
    if not found:
        raise UnknownName.among("trial", name, _alike(name, rows))
    experiments = sorted({row.experiment for row in found})
    if len(experiments) > 1:
        raise UnknownName(
            f"trial {name!r}: must be in one experiment, but is in {', '.join(experiments)}; "
            f"write {experiments[0]}/{name}"
        )
    kept = {stage.fingerprint: stage for stage in opened.finished()}
    return [Explained(row, _lineage(kept, row)) for row in found]


def _alike(name: str, rows: list[Row]) -> set[str]:
    """Return the names among which a misspelt one is looked for: of its experiment if possible."""
    own = [row for row in rows if name.startswith(f"{row.experiment}/")]
    names = {f"{row.experiment}/{row.trial}" for row in own} or {row.trial for row in rows}
    if nearest(name, names) is not None:
        return names
    return {f"{row.experiment}/{row.trial}" for row in rows}


def _names(row: Row) -> set[str]:
    """Return the names for a row's trial."""
    short = {row.trial, row.group}
    return short | {f"{row.experiment}/{name}" for name in short}


def _rows(store: Store) -> tuple[list[Row], list[str]]:
    """Return the rows of all finished sweeps, and the errors of those that cannot be read."""
    rows, damaged = list[Row](), list[str]()
    for path in sorted((store.root / "results").rglob(RESULTS_FILE)):
        try:
            rows += Results.load(path.parent).rows
        except StoreError as error:
            damaged.append(str(error))
    return rows, damaged


def _lineage(kept: dict[str, Finished], row: Row) -> dict[str, Finished]:
    """Return a row's stages and all that they were made from, by fingerprint."""
    open_ends, lineage = list(row.stages.values()), dict[str, Finished]()
    while open_ends:
        stage = kept.get(open_ends.pop())
        if stage is not None and stage.fingerprint not in lineage:
            lineage[stage.fingerprint] = stage
            open_ends.extend(stage.manifest["inputs"].values())
    return lineage
