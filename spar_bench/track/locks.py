"""Which sweeps are alive: one file lock each, so that a killed one's runs do not stay RUNNING.

The kernel frees the lock however the process ends, even by kill -9 or a power cut. A process id
with a start time would have to be read from /proc, and means nothing in a container with its own
ids.
"""

import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from spar_bench.track.uri import sqlite_path


def lock_name(uri: str, experiment: str, spec_hash: str) -> str:
    """Return the tag that names the lock of a run's sweep: `<where>/<digest>`.

    Locks of a SQLite store are beside the file, so anyone who can reach it can check. Those of a
    server are on the sweep's own machine, and only that machine can check.
    """
    where = "beside" if sqlite_path(uri) else socket.gethostname()
    digest = hashlib.sha256(f"{experiment}\0{spec_hash}".encode()).hexdigest()[:16]
    return f"{where}/{digest}"


def sweep_lock(uri: str, name: str) -> FileLock | None:
    """Return the lock of that name, None if it is on another machine."""
    where, _, digest = name.partition("/")
    database = sqlite_path(uri)
    if where != ("beside" if database else socket.gethostname()):
        return None
    if database:
        folder = database.with_name(f"{database.name}.locks")
    else:
        server = hashlib.sha256(uri.encode()).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"spar-bench-{os.getuid()}" / server
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{digest}.lock", thread_local=False)


@contextmanager
def taken(lock: FileLock | None) -> Iterator[bool]:
    """Hold a lock if that needs no waiting; yield whether it is held."""
    try:
        held = None if lock is None else lock.acquire(timeout=0)
    except Timeout:
        held = None
    with held or nullcontext():
        yield held is not None
