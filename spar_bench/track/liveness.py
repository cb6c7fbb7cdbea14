"""Which sweeps are alive: a file lock for each, so that a killed one's runs do not stay RUNNING.

The kernel frees the lock however the process ends, by kill -9 or a power cut too. A process id with
a start time would have to be read from /proc, and tells nothing to a container with its own ids.
"""

import getpass
import hashlib
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spar_bench.track.uri import sqlite_path


def lock_name(uri: str, experiment: str, spec_hash: str) -> str:
    """Return what a run's tag says of its sweep's lock: `<where>/<digest>`.

    Locks of a SQLite store lie beside the file, so whoever reaches it can tell. Those of a server
    lie on the sweep's own machine, and only that machine may judge.
    """
    where = "beside" if sqlite_path(uri) else socket.gethostname()
    digest = hashlib.sha256(f"{experiment}\0{spec_hash}".encode()).hexdigest()[:16]
    return f"{where}/{digest}"


def sweep_lock(uri: str, name: str) -> FileLock | None:
    """Return the lock of that name, None when it lies on another machine."""
    where, _, digest = name.partition("/")
    database = sqlite_path(uri)
    if where != ("beside" if database else socket.gethostname()):
        return None
    if database:
        folder = database.with_name(f"{database.name}.locks")
    else:
        server = hashlib.sha256(uri.encode()).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"spar-bench-{getpass.getuser()}" / server
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{digest}.lock", thread_local=False)


@contextmanager
def in_place_of_the_dead(uri: str, name: str) -> Iterator[bool]:
    """Hold the lock of that name and yield True; False where another does, or none may be had.

    A sweep may end of its own accord between a look at its runs and this, so they are looked at
    again within: whoever holds the lock is the only one who writes them.
    """
    lock = sweep_lock(uri, name)
    try:
        held = lock.acquire(timeout=0) if lock else None
    except Timeout:
        held = None
    if held is None:
        yield False
        return
    with held:
        yield True
