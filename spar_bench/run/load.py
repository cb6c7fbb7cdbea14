"""How busy others keep this machine's processors meanwhile."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE = slice(3, 5)
"""Idle and waiting for disks, among the times of `/proc/stat`. Source: proc_stat(5)."""
_COUNTED = 8
"""The times after these, of guests, are contained in the first two."""


@dataclass(frozen=True)
class Usage:
    """A machine's use at one moment.

    Times are in seconds since a fixed moment: `at_s` on the clock, `busy_s` of all cores, `own_s`
    of this process on any of them; `busy_s` is None where the system does not tell.
    """

    at_s: float
    busy_s: float | None
    own_s: float
    load_average: float
    n_cores: int


def usage_now(stat: Path = _STAT) -> Usage:
    """Return the use of this machine so far, from a file as Linux has it."""
    return Usage(
        at_s=time.monotonic(),
        busy_s=_busy_s(stat),
        own_s=time.process_time(),
        load_average=os.getloadavg()[0],
        n_cores=os.cpu_count() or 1,
    )


def other_cores(before: Usage, after: Usage) -> float | None:
    """Return how many cores others kept busy in the meantime, on average; None if unknown."""
    if before.busy_s is None or after.busy_s is None or after.at_s <= before.at_s:
        return None
    others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return max(others_s / (after.at_s - before.at_s), 0.0)  # the system counts in 1/100 s


def _busy_s(stat: Path) -> float | None:
    try:
        first = stat.read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return None
    times = [int(one) for one in first.split()[1:]][:_COUNTED]
    return (sum(times) - sum(times[_IDLE])) / os.sysconf("SC_CLK_TCK")
