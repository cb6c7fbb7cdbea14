"""Select the points, seeds and trials of an experiment, and the stages that they need; no torch."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from spar_bench import plugin_code
from spar_bench.errors import SparBenchError, StoreError, UnknownName
from spar_bench.files import read_json, replace_text
from spar_bench.spec import LoadedSpec, Point, resolve_point
from spar_bench.spec.read import experiment_name
from spar_bench.stage import Damaged
from spar_bench.store import Store
from spar_bench.validation import Raw

if TYPE_CHECKING:
    from spar_bench.plan.trials import Plan, PlannedCost, PlannedSizes, Trial

    Line = TypeVar("Line", PlannedCost, PlannedSizes)


SUITE_FILE = "suite.json"


def initial_points(loaded: LoadedSpec) -> list[Point]:
    """Return the points of a sweep; for a search, those that it begins with."""
    if loaded.search is None:
        return loaded.points
    enqueued = [resolve_point(loaded, values) for values in loaded.search.enqueue]
    return enqueued or [resolve_point(loaded, {})]


def count_trials(points: Iterable[Point], seeds: list[int]) -> int:
    """Return how many trials points make: one per seed if there is a student, else one."""
    return sum(len(seeds) if point.settings.distils else 1 for point in points)


def points_so_far(loaded: LoadedSpec, store: Store) -> list[Point]:
    """Return the points of a sweep; for a search, those tried and those that it begins with."""
    if loaded.search is None:
        return loaded.points
    # A grid does not need Optuna.
    from spar_bench.session.search import past_points

    past = past_points(loaded, store)
    begun = past or initial_points(loaded)
    enqueued = initial_points(loaded) if loaded.search.enqueue else []
    return list({point.group: point for point in (*begun, *enqueued)}.values())


def seeds_of(loaded: LoadedSpec, n_seeds: int | None) -> list[int]:
    """Return the seeds of a run: 0 to `n_seeds` - 1, or the spec's."""
    return loaded.spec.seeds if n_seeds is None else list(range(n_seeds))


def seeds_so_far(loaded: LoadedSpec, store: Store) -> list[int]:
    """Return the seeds of the spec, and those that it was last swept with.

    Raises:
        StoreError: the record of the latter cannot be read.
    """
    try:
        return sorted({*loaded.spec.seeds, *_last_sweep(loaded, store)["seeds"]})
    except (StoreError, KeyError, TypeError) as error:
        raise StoreError(
            f"{_sweep_path(loaded, store)}: must hold the seeds of the last sweep, but cannot be "
            f"read; nothing is lost: the next sweep of {loaded.experiment}, with --seeds if that "
            "was given, rewrites it"
        ) from error


def note_sweep(loaded: LoadedSpec, store: Store, seeds: list[int]) -> list[int]:
    """Record a sweep's seeds and spec when it starts; return the seeds that it leaves out.

    `cache gc` keeps what the seeds need.

    Raises:
        SparBenchError: another existing spec has results under the same name, or a suite has it.
    """
    suite = _sweep_path(loaded, store).with_name(SUITE_FILE)
    if suite.exists():
        raise SparBenchError(
            f"{loaded.path}: an experiment must have a unique name, but {loaded.experiment!r} is "
            f"also a folder that was swept as one; rename one of them and delete {suite}, or "
            "separate them with --store"
        )
    spec = os.path.relpath(loaded.path, store.root)  # relative, so that both may be moved together
    swept, other = list[int](), store.root / spec
    with suppress(StoreError, KeyError, TypeError):  # an unreadable record is rewritten
        last = _last_sweep(loaded, store)
        swept, other = list(last["seeds"]), store.root / last["spec"]
    if other.is_file() and not other.samefile(loaded.path):
        raise SparBenchError(
            f"{loaded.path}: an experiment must have a unique name, but "
            f"{loaded.experiment!r} is also {os.path.relpath(other)}; rename one of the files, "
            "or separate them with --store"
        )
    replace_text(_sweep_path(loaded, store), json.dumps({"seeds": seeds, "spec": spec}))
    return sorted(set(swept) - set(seeds))


def note_suite(folder: Path, experiments: list[str], store: Store) -> None:
    """Record which experiments a suite has, for its report."""
    path = store.results / experiment_name(folder) / SUITE_FILE
    replace_text(path, json.dumps({"experiments": experiments}))


def swept_suites(store: Store) -> dict[str, list[str]]:
    """Return the experiments of each suite that was swept, by the suite's name.

    Raises:
        StoreError: a record of one cannot be read.
    """
    root = store.results
    return {
        path.parent.relative_to(root).as_posix(): _members(path)
        for path in sorted(root.rglob(SUITE_FILE))
    }


def _members(path: Path) -> list[str]:
    names = read_json(path).get("experiments")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return names
    raise StoreError(
        f"{path}: must hold the names of a suite's experiments, but does not; delete it, and run "
        "spar-bench sweep on the suite's folder again"
    )


def _last_sweep(loaded: LoadedSpec, store: Store) -> Raw:
    path = _sweep_path(loaded, store)
    return read_json(path) if path.exists() else {"seeds": [], "spec": loaded.path.absolute()}


def _sweep_path(loaded: LoadedSpec, store: Store) -> Path:
    return store.results / loaded.experiment / "sweep.json"


def select_trials(trials: "list[Trial]", only: Iterable[str]) -> "list[Trial]":
    """Return the trials named, by trial or by group; all of them if none is named.

    Raises:
        UnknownName: no trial has a name given.
    """
    names = [only] if isinstance(only, str) else list(only)
    known = {name for trial in trials for name in (trial.name, trial.group)}
    for name in names:
        if name not in known:
            raise UnknownName.among("trial", name, known)
    return [t for t in trials if not names or t.name in names or t.group in names]


def stages_after_trials(plan: "Plan", trials: "Iterable[Trial]", *, timed: bool) -> set[str]:
    """Return the stages made after all trials: costs at further sizes, and timings."""
    last = {line.cost for line in _of_trials(plan.costs, trials)}
    if timed and plan.latency is not None:
        last.add(plan.latency)
    return last


def stages_of_trials(plan: "Plan", trials: "list[Trial]", *, timed: bool = True) -> set[str]:
    """Return all stages that a sweep of these trials needs."""
    last = stages_after_trials(plan, trials, timed=timed)
    return plan.needed_by(last.union(*(plan.of_trial(trial) for trial in trials)))


def require_unedited(plan: "Plan", trials: "list[Trial]", store: Store) -> None:
    """Refuse finished stages of trials that a plug-in made which was edited since.

    Raises:
        StoreError: its code has changed under the same VERSION.
    """
    records = []
    for key in stages_of_trials(plan, trials):
        with suppress(Damaged):
            finished = store.find(plan.stages[key])
            records += [] if finished is None else [finished.plugins]
    plugin_code.require_unedited(records)


def time_only(plan: "Plan", trials: "list[Trial]", store: Store) -> None:
    """Time what these trials need alone, unless a session that times everything is finished.

    The latencies of one table come from one session, so those of the other trials are then not
    measured; a sweep of all trials times all of them.
    """
    if plan.latency is None or len(trials) == len(plan.trials):
        return
    with suppress(Damaged):
        if store.find(plan.stages[plan.latency]) is not None:
            return
    keys = {row.timed for trial in trials for row in trial.rows}
    keys |= {line.timed for line in _of_trials(plan.costs, trials)}
    keys |= {key for line in _of_trials(plan.sizes, trials) for key in line.spanning.values()}
    plan.limit_timing(keys)


def _of_trials(lines: "Iterable[Line]", trials: "Iterable[Trial]") -> "list[Line]":
    """Return the lines of costs.csv or sizes.csv that belong to these trials."""
    keys = {(trial.group, row.method) for trial in trials for row in trial.rows}
    return [line for line in lines if (line.point.group, line.method) in keys]
