"""Machines that share a bucket, each with a folder of its own, and what they make there."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from spar_bench.bucket.objects import Bucket
from spar_bench.bucket.store import BucketStore
from spar_bench.files import replace_text
from spar_bench.leases import Host
from spar_bench.run.context import ignore
from spar_bench.stage import Finished
from spar_bench.stages.base import Stage
from tests.toy import Summary, toy

ADDRESS = "memory://bucket/store"
STAGE = toy({"source": "ab"}, seed=0, scale=0.1)
KEY = STAGE.kind, STAGE.fingerprint
LENGTH_S = 0.6


@pytest.fixture(autouse=True)
def emptied() -> Iterator[None]:
    """Leave nothing in memory."""
    yield
    fsspec.filesystem("memory").store.clear()


def machine(folder: Path, name: str = "one", *, make: bool = True) -> BucketStore:
    """Return the store of a machine, whose processes have its name for their host."""
    host = Host(name, f"boot of {name}")
    store = BucketStore(folder / name, Bucket(ADDRESS), make=make, lease_s=LENGTH_S, host=host)
    forget(store)
    return store


def forget(*stores: BucketStore) -> None:
    """Have stores ask the bucket anew whenever they want to know something."""
    for store in stores:
        for recent in (store._there, store.leases._far, store.failures._there):
            recent.age_s = 0.0


def finish(store: BucketStore, stage: Stage = STAGE, **files: str) -> Finished:
    """Make a stage."""
    with store.lock([stage.fingerprint], on_wait=ignore, poll=ignore):
        return finish_held(store, stage, **files)


def finish_held(store: BucketStore, stage: Stage = STAGE, **files: str) -> Finished:
    """Make a stage whose lease is held."""
    for name, text in (files or {"a": "first", "b": "second"}).items():
        replace_text(store.output(stage) / name, text)
    return store.finish(stage, summary=Summary(n=3), made={"device": "cpu"})


def objects(folder: str = "") -> set[str]:
    """Return the names of all objects below a folder of the bucket."""
    root = "/bucket/store/"
    return {
        path.removeprefix(root)
        for path in fsspec.filesystem("memory").store
        if path.startswith(root + folder)
    }
