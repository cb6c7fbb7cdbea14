"""Finished stages from one store to another, by fingerprint: a cluster's, a laptop's, a bucket's.

The other store is a folder or whatever fsspec can reach, such as `s3://BUCKET/FOLDER`. Each file is
checked against its manifest on the way. A stage is there whole or not at all.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spar_bench.bucket.objects import Bucket
from spar_bench.elsewhere import Elsewhere, Key
from spar_bench.errors import NotReady
from spar_bench.files import replace_bytes, writing
from spar_bench.opening import open_folder
from spar_bench.results import RESULTS_FILE
from spar_bench.stage import Damaged
from spar_bench.store import Store


@dataclass
class Moved:
    """What a transfer did: stages and bytes copied, stages that were there, and what was wrong."""

    n_stages: int = 0
    n_bytes: int = 0
    n_there: int = 0
    damaged: list[str] = field(default_factory=list)


def pull(store: Store, other: Elsewhere, experiments: Iterable[str] = ()) -> Moved:
    """Copy finished stages here: all, or those of experiments' results, with these."""
    other.require_store()
    moved, names = Moved(), list(experiments)
    there = other.stages()
    wanted = there & _of_results(other, names) if names else there
    for key in sorted(wanted):
        with store.lock([key[1]], on_wait=lambda _: None, poll=lambda: None):
            if _is_here(store, key):
                moved.n_there += 1
                continue
            try:
                moved.n_bytes += _take(store, other, key)
                moved.n_stages += 1
            except (Damaged, FileNotFoundError) as error:
                moved.damaged.append(str(error))
    for name in names:
        for file in other.names(_results(name)):
            content = other.read(f"{_results(name)}/{file}")
            replace_bytes(store.results / name / file, content)
    return moved


def push(store: Store, other: Elsewhere, experiments: Iterable[str] = ()) -> Moved:
    """Copy finished stages from here: all, or those of experiments' results, with these.

    Raises:
        NotReady: the other is the store of a folder that is not of this machine.
    """
    if other.folder is not None:  # where a stage can be renamed into place
        return pull(open_folder(other.folder), Elsewhere(str(store.root)), experiments)
    if not isinstance(other, Bucket):
        raise NotReady(
            f"{other.url}: must be a bucket, or a folder of this machine, but is the store of a "
            "folder elsewhere; pull from this one there"
        )
    other.begin()
    moved, names = Moved(), list(experiments)
    here = {(one.kind, one.fingerprint): one for one in store.finished()}
    wanted = set(here)
    if names:
        wanted &= _of_results(Elsewhere(str(store.root)), names)
    there = other.stages()
    for key in sorted(wanted):
        if key in there:
            moved.n_there += 1
            continue
        try:
            here[key].check(hashed=True)
        except Damaged as error:
            moved.damaged.append(str(error))
            continue
        is_new = other.publish(key, here[key].manifest, here[key].path) is here[key].manifest
        moved.n_stages += is_new
        moved.n_there += not is_new
        moved.n_bytes += here[key].n_bytes if is_new else 0
    for name in names:
        for path in sorted((store.results / name).iterdir()):
            if path.is_file():
                other.replace(f"{_results(name)}/{path.name}", path.read_bytes())
    return moved


def _take(store: Store, other: Elsewhere, key: Key) -> int:
    """Copy a stage into the store, under its lock; return its bytes."""
    manifest = other.manifest(key)
    output = store.root / "scratch" / key[1] / store.leases.owner / "output"
    try:
        other.fetch(key, manifest, output)
    except Damaged:
        store.discard_unfinished(key[1])
        raise
    store.leases.require(key[1])
    folder = store.root / "stages" / key[0] / key[1]
    with writing(store.root):
        if folder.exists():  # damaged
            folder.rename(output.with_name("damaged"))
    return store.admit(key, output, manifest).n_bytes


def _is_here(store: Store, key: Key) -> bool:
    """Return whether a stage is here, and intact."""
    try:
        found = store.opened(*key)
        if found is not None:
            found.check(hashed=True)
    except Damaged:
        return False
    return found is not None


def _of_results(store: Elsewhere, names: list[str]) -> set[Key]:
    """Return the stages that experiments' rows are made of; a role is a kind, but for students.

    An imported student fills the same role as one that was trained.
    """
    found = set[Key]()
    for name in names:
        for row in _rows(store, name):
            for role, fingerprint in row["stages"].items():
                found.add((role, fingerprint))
                if role == "student":
                    found.add(("imported", fingerprint))
    return found


def _results(name: str) -> str:
    """Return the folder of an experiment's results in a store."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise NotReady(f"{name}: must be the name of an experiment, but is a path; correct it")
    return f"results/{name}"


def _rows(store: Elsewhere, name: str) -> list[dict[str, Any]]:
    """Return the rows of an experiment's results."""
    try:
        content = store.read(f"{_results(name)}/{RESULTS_FILE}")
    except FileNotFoundError as error:
        raise NotReady(
            f"{store.url}: must have results of {name}, but has none; name an experiment that was "
            "swept there, or leave it out for all stages"
        ) from error
    rows: list[dict[str, Any]] = json.loads(content)["rows"]
    return rows
