"""What happens to stages while they are made, as values that travel between processes as JSON."""

from collections.abc import Callable
from typing import Literal

from spar_bench.validation import Part

Ending = Literal["found", "made", "failed", "pruned"]
"""How a worker is done with a stage; `found`: another process has made it meanwhile."""
ENDINGS: tuple[Ending, ...] = ("found", "made", "failed", "pruned")


class Event(Part):
    """One thing that happened to a stage.

    `text` explains it; `share` is how much of the stage is done, 0 to 1, in `progress`. A worker
    that says `epoch` waits to hear whether its student, with this mean loss, is to be given up; one
    that says `helped` has found no part free of what another makes. `log` is a line of a worker's
    log, which the parent repeats.
    `stopped` ends a worker whatever it was making: its store cannot be used, or it was asked to.
    """

    kind: (
        Ending
        | Literal["started", "progress", "waiting", "damaged", "blocked"]
        | Literal["epoch", "helped", "log", "stopped"]
    )
    fingerprint: str
    text: str = ""
    share: float = 0.0
    epoch: int = 0
    loss: float = 0.0


Emit = Callable[[Event], None]
