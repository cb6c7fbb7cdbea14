"""Find out which of `torchrun`'s processes this one is, without torch."""

import os

_STATED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What `torchrun` sets; a scheduler may set some of them for other purposes."""


def is_launched() -> bool:
    """Return whether `torchrun` started this process, alone or with others."""
    return all(name in os.environ for name in _STATED)


def n_processes() -> int:
    """Return how many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def rank() -> int:
    """Return this process's number among them; 0 also does everything besides training."""
    return int(os.environ["RANK"]) if n_processes() > 1 else 0


def local_rank() -> int:
    """Return this process's number among those on this machine."""
    return int(os.environ["LOCAL_RANK"])
