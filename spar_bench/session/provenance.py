"""Trace the numbers of a finished sweep to the stages that made them; no torch."""

from dataclasses import dataclass
from pathlib import Path

from spar_bench.errors import NotReady, StoreError, UnknownName
from spar_bench.failures import Failure
from spar_bench.opening import open_store
from spar_bench.results import RESULTS_FILE, Results, Row
from spar_bench.stage import Finished
from spar_bench.store import DEFAULT_ROOT, Store
from spar_bench.suggest import nearest


@dataclass(frozen=True)
class Told:
    """Why a stage of some kind failed, the end of what was said meanwhile, and the file of it."""

    kind: str
    failure: Failure
    lines: list[str]
    log: Path


@dataclass(frozen=True)
class Explained:
    """A row of a sweep, the manifests of the stages that its numbers come from, and what failed."""

    row: Row
    stages: dict[str, Finished]
    failed: dict[str, Told]


def explain(name: str, *, store: Path = DEFAULT_ROOT) -> list[Explained]:
    """Return the provenance of every number of a trial.

    Args:
        name: A trial or group; prefixed by experiment and slash if two experiments have that name.
        store: Folder of the store.

    Raises:
        UnknownName: no finished sweep has a trial of that name, or several have.
        StoreError: the rows of a sweep that may contain it cannot be read.
    """
    opened = open_store(store, make=False)
    rows, damaged = _rows(opened)
    if not rows and not damaged:
        raise NotReady(
            f"{opened.place}: must hold a finished sweep, but holds none; run `spar-bench sweep` "
            "on a spec first"
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
    return [Explained(row, _lineage(kept, row), _failed(opened, row)) for row in found]


def _failed(store: Store, row: Row) -> dict[str, Told]:
    """Return those of a row's stages whose last attempt failed, by fingerprint."""
    found = dict[str, Told]()
    for kind, key in row.stages.items():
        failure = store.failures.read(key)
        if failure is not None:
            failures = store.failures
            found[key] = Told(kind, failure, failures.said(key), failures.log(key))
    return found


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
    for path in sorted(store.results.rglob(RESULTS_FILE)):
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
