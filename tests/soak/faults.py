"""The faults: each takes the ground and the processes of a round, and returns what undoes it."""

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from spar_bench.leases import LEASE_S
from tests.backends.nodes import Nodes
from tests.soak.ground import Database, Disk, Service

Undo = Callable[[], None]


@dataclass
class Ground:
    """What faults are made on; `started` are the processes that the round has started itself.

    `nodes` are those of a round that is on two, `bucket` is that of a round in one.
    """

    disk: Disk
    database: Database
    drawn: random.Random
    nodes: Nodes | None = None
    bucket: Service | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def drivers(self) -> list[int]:
        """Return the processes that were started and run."""
        return [process.pid for process in self.started if process.poll() is None]

    def workers(self) -> list[int]:
        """Return the worker processes on the disk, whoever has started them."""
        return [pid for pid, text in listed() if " work " in text and str(self.disk.folder) in text]

    def raylets(self) -> list[int]:
        """Return Ray's own servants, of the processes that were started."""
        parents = dict(_pairs("ppid="))
        found = [pid for pid, text in listed() if "raylet/raylet " in text]
        own = {str(process.pid) for process in self.started}
        return [pid for pid in found if own & set(_ancestors(str(pid), parents))]


def listed() -> list[tuple[int, str]]:
    """Return the numbers and commands of all processes."""
    return [(int(pid), text) for pid, text in _pairs("args=")]


def _pairs(column: str) -> list[tuple[str, str]]:
    """Return the number of each process, and what `ps` has of it in a column."""
    told = subprocess.run(["ps", "-ewwo", f"pid=,{column}"], capture_output=True, text=True).stdout
    pairs = [line.split(maxsplit=1) for line in told.splitlines()]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _ancestors(pid: str, parents: dict[str, str]) -> Iterator[str]:
    while pid in parents:
        pid = parents[pid]
        yield pid


def _kill(pids: list[int], drawn: random.Random) -> tuple[Undo, float] | None:
    if not pids:
        return None
    with suppress(ProcessLookupError):
        os.kill(drawn.choice(pids), signal.SIGKILL)
    return _nothing, 0.0


def kill_worker(ground: Ground) -> tuple[Undo, float] | None:
    """Kill a worker process."""
    return _kill(ground.workers(), ground.drawn)


def kill_driver(ground: Ground) -> tuple[Undo, float] | None:
    """Kill a sweep, or what works along."""
    return _kill(ground.drivers(), ground.drawn)


def kill_raylet(ground: Ground) -> tuple[Undo, float] | None:
    """Kill Ray's node."""
    return _kill(ground.raylets(), ground.drawn)


def stop_holder(ground: Ground) -> tuple[Undo, float] | None:
    """Stop a process for longer than its leases last; then it goes on."""
    pids = ground.workers() + ground.drivers()
    if not pids:
        return None
    pid = ground.drawn.choice(pids)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    return go_on, LEASE_S + 10.0


def fill_disk(ground: Ground) -> tuple[Undo, float] | None:
    """Leave no space for some seconds."""
    ground.disk.fill()
    return ground.disk.empty, ground.drawn.uniform(1, 5)


def lock_store(ground: Ground) -> tuple[Undo, float] | None:
    """Let nothing be written for some seconds."""
    ground.disk.lock()
    return ground.disk.unlock, ground.drawn.uniform(1, 5)


def stop_database(ground: Ground) -> tuple[Undo, float] | None:
    """End the database of MLflow for a while."""
    ground.database.stop()
    return ground.database.start, ground.drawn.uniform(5, 60)


def cut_network(ground: Ground) -> tuple[Undo, float] | None:
    """Cut two nodes off from each other, for a moment or until Ray gives one up."""
    if ground.nodes is None:
        return None
    ground.nodes.cut()
    return ground.nodes.mend, ground.drawn.uniform(1, 40)


def pause_bucket(ground: Ground) -> tuple[Undo, float] | None:
    """Have the bucket's service not answer, for a moment or until leases have run out."""
    if ground.bucket is None:
        return None
    ground.bucket.pause()
    return ground.bucket.go_on, ground.drawn.uniform(1, 1.5 * LEASE_S)


def _nothing() -> None:
    """Undo nothing."""


FAULTS: dict[str, Callable[[Ground], tuple[Undo, float] | None]] = {
    "kill -9 of a worker": kill_worker,
    "kill -9 of a sweep": kill_driver,
    "kill -9 of a raylet": kill_raylet,
    "a holder of leases stopped for longer than they last": stop_holder,
    "disk full": fill_disk,
    "store read-only": lock_store,
    "PostgreSQL of MLflow down": stop_database,
    "network between two nodes cut": cut_network,
    "S3 does not answer": pause_bucket,
}
"""Those that last return what undoes them, and after how many seconds; None if nothing is there."""
WEIGHTS = [6, 4, 3, 1, 3, 3, 1, 4, 2]
CLOCK = "clock two hours off in one process"
"""Made by how a process is started, for its whole life."""
FAULTS_COUNTED = [*FAULTS, CLOCK]
