"""Look at experiments without running anything: plans, standings, provenance, reports; no torch."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spar_bench import report, track
from spar_bench.errors import NotReady, UnknownName
from spar_bench.plan.estimate import DEFAULT_GFLOPS_PER_S, Estimate, estimate, speeds
from spar_bench.plan.stages import batch_key
from spar_bench.plan.trials import Plan, make_plan
from spar_bench.results import Row, Status
from spar_bench.session.collect import Collector
from spar_bench.session.ready import known_points
from spar_bench.spec import LoadedSpec, read_spec
from spar_bench.store import DEFAULT_ROOT, Finished, Stage, Store


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a plan: where it stands, how many trials share it, and what it will take.

    `seconds` is 0 for a finished stage.
    """

    stage: Stage
    status: Status
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

    @property
    def missing(self) -> list[PlannedStage]:
        """The stages that are not finished."""
        return [stage for stage in self.stages if stage.status != "finished"]

    @property
    def seconds(self) -> float:
        """Time that the missing stages will take; windows that evaluations share count once."""
        longest: dict[str, float] = {}
        for one in self.missing:
            together = one.stage.kind == "evaluate"
            key = batch_key(one.stage) if together else one.stage.fingerprint
            longest[key] = max(longest.get(key, 0.0), one.seconds)
        return sum(longest.values())


@dataclass(frozen=True)
class Standing:
    """How far an experiment is: trials by status, and why those that failed did."""

    loaded: LoadedSpec
    n_trials: dict[Status, int]
    failures: dict[str, str]


def plan_sweep(
    path: Path, *, store: Path = DEFAULT_ROOT, seeds: list[int] | None = None
) -> PlanView:
    """Return what a sweep of a spec file would do, and about how long it would take.

    A search is planned for the points that are tried first; what it asks for later is not known.

    Raises:
        SpecError: the spec has mistakes.
        NotReady: weights or data are missing.
    """
    loaded = read_spec(path)
    opened = Store(store)
    laid_out = lay_out(loaded, opened, seeds or loaded.spec.seeds)
    collector = Collector(loaded.experiment, laid_out, opened)
    sharing = [laid_out.of_trial(trial) for trial in laid_out.trials]
    measured = speeds(opened.finished())
    stages = []
    for fingerprint, stage in laid_out.stages.items():
        status, expected = collector.state(fingerprint).status, estimate(laid_out, stage)
        speed = measured.get(stage.kind, DEFAULT_GFLOPS_PER_S)
        stages.append(
            PlannedStage(
                stage=stage,
                status=status,
                n_trials=sum(fingerprint in needed for needed in sharing),
                estimate=expected,
                seconds=0.0 if status == "finished" else expected.gflops / speed,
            )
        )
    return PlanView(loaded, laid_out, stages, bool(measured))


def lay_out(loaded: LoadedSpec, store: Store, seeds: list[int]) -> Plan:
    """Return the plan of a spec, its timings being those of the place where they were last made."""
    points = known_points(loaded)
    first = make_plan(points, seeds, {})
    if first.latency is None:
        return first
    arms = first.stages[first.latency].settings["arms"]
    sittings = [
        stage
        for stage in store.finished()
        if stage.manifest["kind"] == "latency" and stage.manifest["settings"]["arms"] == arms
    ]
    if not sittings:
        return first
    newest = max(sittings, key=lambda stage: stage.manifest["made"]["ended_ms"])
    return make_plan(points, seeds, newest.manifest["settings"]["place"])


def standing(path: Path, *, store: Path = DEFAULT_ROOT) -> Standing:
    """Return how far the experiment of a spec file is, as the store has it."""
    loaded, opened = read_spec(path), Store(store)
    laid_out = lay_out(loaded, opened, loaded.spec.seeds)
    collector = Collector(loaded.experiment, laid_out, opened)
    counts: dict[Status, int] = {}
    failures = {}
    for trial in laid_out.trials:
        state = collector.trial_state(trial)
        counts[state.status] = counts.get(state.status, 0) + 1
        if state.status == "failed":
            failures[trial.name] = state.reason
    return Standing(loaded, counts, failures)


@dataclass(frozen=True)
class Explained:
    """A row of a finished sweep, and the manifests of the stages that its numbers come from."""

    row: Row
    stages: dict[str, Finished]


def explain(name: str, *, store: Path = DEFAULT_ROOT) -> list[Explained]:
    """Return the provenance of every number of a trial.

    Args:
        name: A trial or group, with its experiment before a slash where two have one of that name.
        store: Folder of the store.

    Raises:
        UnknownName: no finished sweep has a trial of that name, or several have.
    """
    opened = Store(store)
    found = [
        row
        for row in _rows(opened)
        if name
        in (row.trial, row.group, f"{row.experiment}/{row.trial}", f"{row.experiment}/{row.group}")
    ]
    if not found:
        raise UnknownName.among(
            "trial", name, {f"{row.experiment}/{row.trial}" for row in _rows(opened)}
        )
    experiments = sorted({row.experiment for row in found})
    if len(experiments) > 1:
        raise UnknownName(
            f"trial {name!r}: must be of one experiment, but {', '.join(experiments)} have one; "
            f"say {experiments[0]}/{name}"
        )
    return [Explained(row, _lineage(opened, row)) for row in found]


def write_report(
    experiments: Iterable[str] = (),
    *,
    folder: Path = Path("reports"),
    tracking_uri: str | None = None,
) -> dict[str, list[Path]]:
    """Write the tables and figures of finished sweeps; returns their files by experiment.

    Args:
        experiments: Names; none: every experiment that the tracking store has.
        folder: Each experiment has its own folder in it.
        tracking_uri: Where the sweeps were mirrored to.

    Raises:
        NotReady: there is no finished sweep.
    """
    uri = track.tracking_uri(tracking_uri)
    names = list(experiments) or track.experiments(uri)
    if not names:
        raise NotReady(
            f"{uri}: must hold a finished sweep, but holds none; run `spar-bench sweep` on a spec first"
        )
    written = {}
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            results = track.read_results(uri, name, Path(scratch))
            written[name] = report.write(results, folder / name)
    return written


def _rows(store: Store) -> list[Row]:
    from spar_bench.results import Results

    folders = sorted((store.root / "results").rglob("results.json"))
    return [row for path in folders for row in Results.load(path.parent).rows]


def _lineage(store: Store, row: Row) -> dict[str, Finished]:
    """Return a row's stages and all that they were made from, by fingerprint."""
    by_fingerprint = {stage.fingerprint: stage for stage in store.finished()}
    open_ends, lineage = list(row.stages.values()), dict[str, Finished]()
    while open_ends:
        stage = by_fingerprint.get(open_ends.pop())
        if stage is not None and stage.fingerprint not in lineage:
            lineage[stage.fingerprint] = stage
            open_ends.extend(stage.manifest["inputs"].values())
    return lineage
