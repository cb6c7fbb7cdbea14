"""Look at experiments without running anything: plans, standings, provenance, reports; no torch."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from spar_bench import report, track
from spar_bench.errors import NotReady, StoreError, UnknownName
from spar_bench.files import writing
from spar_bench.plan.estimate import DEFAULT_GFLOPS_PER_S, Estimate, estimate, speeds
from spar_bench.plan.stages import batch_key
from spar_bench.plan.trials import Plan, make_plan
from spar_bench.results import Results, Row, Status, read_rows
from spar_bench.session.choice import chosen, known_points, known_seeds, wanted
from spar_bench.session.collect import Collector
from spar_bench.session.remarks import remarks
from spar_bench.spec import LoadedSpec, read_spec
from spar_bench.spec.read import experiment_name
from spar_bench.stage import Finished, Stage
from spar_bench.store import DEFAULT_ROOT, Store
from spar_bench.track.uri import sqlite_path

_LONGEST_PART = 255  # bytes; no file system in use takes more in a name


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a plan: where it stands, how many trials share it, and what it will take.

    `to_do` says whether a sweep would make it: not where it is finished, nor where it failed for
    good. `seconds` is 0 where it would not.
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
    path: str | Path,
    *,
    store: str | Path = DEFAULT_ROOT,
    seeds: list[int] | None = None,
    only: str | Iterable[str] = (),
) -> PlanView:
    """Return what a sweep of a spec file would do, and about how long it would take.

    A search is planned for the points that it has tried and those that it begins with; what it
    asks for later is not known.

    Raises:
        SpecError: the spec has mistakes.
        NotReady: weights or data are missing.
        UnknownName: no trial has a name of `only`.
    """
    loaded = read_spec(path)
    opened = Store(Path(store), make=False)
    laid_out = lay_out(loaded, opened, seeds or loaded.spec.seeds)
    laid_out.trials = chosen(laid_out.trials, only)
    asked = wanted(laid_out, laid_out.trials)
    collector = Collector(loaded.experiment, laid_out, opened)
    measured = speeds(opened.finished())
    stages = [
        _planned(collector, stage, measured.get(stage.kind, DEFAULT_GFLOPS_PER_S))
        for fingerprint, stage in laid_out.stages.items()
        if fingerprint in asked
    ]
    said = remarks(trial.settings for trial in laid_out.trials)
    return PlanView(loaded, laid_out, stages, bool(measured), said)


def _planned(collector: Collector, stage: Stage, gflops_per_s: float) -> PlannedStage:
    plan, state = collector.plan, collector.state(stage.fingerprint)
    to_do, expected = state.status != "finished" and not state.final, estimate(plan, stage)
    return PlannedStage(
        stage=stage,
        status=state.status,
        to_do=to_do,
        n_trials=sum(stage.fingerprint in plan.of_trial(trial) for trial in plan.trials),
        estimate=expected,
        seconds=expected.gflops / gflops_per_s if to_do else 0.0,
    )


def lay_out(loaded: LoadedSpec, store: Store, seeds: list[int]) -> Plan:
    """Return the plan of a spec, its timings being those of the place where they were last made."""
    points = known_points(loaded, store)
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
    loaded, opened = read_spec(path), Store(store, make=False)
    laid_out = lay_out(loaded, opened, known_seeds(loaded, opened))
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
        StoreError: the rows of a sweep that may have it cannot be read.
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
        raise UnknownName.among("trial", name, {f"{row.experiment}/{row.trial}" for row in rows})
    experiments = sorted({row.experiment for row in found})
    if len(experiments) > 1:
        raise UnknownName(
            f"trial {name!r}: must be of one experiment, but {', '.join(experiments)} have one; "
            f"say {experiments[0]}/{name}"
        )
    kept = {stage.fingerprint: stage for stage in opened.finished()}
    return [Explained(row, _lineage(kept, row)) for row in found]


def write_report(
    experiments: str | Iterable[str] = (),
    *,
    folder: str | Path = Path("reports"),
    tracking_uri: str | None = None,
    on_written: Callable[[str, list[Path]], None] | None = None,
) -> dict[str, list[Path]]:
    """Write the tables and figures of finished sweeps; returns their files by experiment.

    Args:
        experiments: A name or several, or their specs' paths; none: all that the tracking store
            has.
        folder: Each experiment has its own folder in it.
        tracking_uri: Where the sweeps were mirrored to.
        on_written: Takes each experiment and its files as soon as they are there.

    Raises:
        NotReady: there is no finished sweep, or one without a finished trial, or its name is none
            that a folder of the report could have; of several, the others' reports are written.
        StoreError: the tracking store cannot be read, or the folder not written.
    """
    uri, folder = track.tracking_uri(tracking_uri), Path(folder)
    written, missing = {}, []
    asked = [experiments] if isinstance(experiments, str) else experiments
    for name in _reported(uri, asked):
        try:
            results, own = _results(uri, name), _own_folder(uri, name, folder)
        except NotReady as error:  # the others are written all the same
            missing.append(str(error))
            continue
        with writing(own):
            written[name] = report.write(results, own)
        if on_written is not None:
            on_written(name, written[name])
    if missing:
        raise NotReady("\n".join(missing))
    return written


def _results(uri: str, name: str) -> Results:
    """Return the results of a sweep in which a trial finished.

    Raises:
        NotReady: there is none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        results = track.read_results(uri, name, Path(scratch))
    if not any(row.status == "finished" for row in results.rows):
        n_trials = len({row.trial for row in results.rows})
        raise NotReady(
            f"{name}: must have a finished trial to report, but none of {n_trials} is; spar-bench "
            "status says why: mend it, then run the sweep again"
        )
    return results


def _reported(uri: str, asked: Iterable[str]) -> list[str]:
    """Return the experiments asked for, by name or by their specs' paths, or all."""
    database = sqlite_path(uri)
    is_there = database is None or database.exists()
    names = [experiment_name(Path(n)) if n.endswith((".yaml", ".yml")) else n for n in asked]
    if is_there and not names:
        names = track.experiments(uri)
    if not names or not is_there:
        raise NotReady(
            f"{uri}: must hold a finished sweep, but holds none; run `spar-bench sweep` on a spec "
            "first"
        )
    return names


def _own_folder(uri: str, experiment: str, folder: Path) -> Path:
    """Return the folder of an experiment's report; in MLflow it may be renamed to anything."""
    parts = experiment.split("/")
    if any(part in ("", ".", "..") or len(part.encode()) > _LONGEST_PART for part in parts):
        raise NotReady(
            f"{uri}: an experiment's name must be that of a folder below {folder}, but got "
            f"{experiment!r}; rename it in MLflow"
        )
    return folder / experiment


def _names(row: Row) -> set[str]:
    """Return what a row's trial may be called by."""
    short = {row.trial, row.group}
    return short | {f"{row.experiment}/{name}" for name in short}


def _rows(store: Store) -> tuple[list[Row], list[str]]:
    """Return the rows of all finished sweeps, and what is wrong with those that cannot be read."""
    rows, damaged = list[Row](), list[str]()
    for path in sorted((store.root / "results").rglob("results.json")):
        try:
            rows += read_rows(path.parent)
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
