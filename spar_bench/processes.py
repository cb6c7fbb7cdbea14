"""Find out which of several processes that train together this one is, without torch.

`torchrun` has started them, or a sweep that has workers.
"""

import os
from collections.abc import Mapping
from pathlib import Path

MEETING = "SPAR_BENCH_MEETING"
"""Names the file by which the processes of a worker find each other; on a file system of all."""
_STATED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun` sets; a scheduler may set some of them for other purposes."""


def is_launched() -> bool:
    """Return whether this process was started to train with others, or by `torchrun` alone."""
    return meeting() is not None or all(name in os.environ for name in _STATED)


def quieten_torch() -> None:
    """Keep torch, before it is imported, from warning that it looked for unused weights."""
    if is_launched():
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def meeting() -> Path | None:
    """Return the file by which a worker's processes meet; None elsewhere, also with `torchrun`."""
    path = os.environ.get(MEETING)
    return Path(path) if path else None


def places(n: int, meeting: Path) -> list[Mapping[str, str]]:
    """Return what tells each of n processes its place, as variables of its environment."""
    shared = {MEETING: str(meeting), "WORLD_SIZE": str(n)}
    return [{**shared, "RANK": str(i), "LOCAL_RANK": str(i)} for i in range(n)]


def n_processes() -> int:
    """Return how many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def rank() -> int:
    """Return this process's number among them; 0 also does everything besides training."""
    return int(os.environ["RANK"]) if n_processes() > 1 else 0


def local_rank() -> int:
    """Return this process's number among those on this machine."""
    return int(os.environ["LOCAL_RANK"])
