"""What happens to stages while they are made, as values that travel between processes as JSON."""

from collections.abc import Callable
from typing import Literal

from spar_bench.validation import Part

Ending = Literal["found", "made", "failed", "pruned"]
"""How a worker is done with a stage; `found`: another process has made it meanwhile."""
ENDINGS: tuple[Ending, ...] = ("found", "made", "failed", "pruned")
RELEASES = (*ENDINGS, "left", "helped")
"""Events after which a worker does nothing more for a stage."""
NO_SLOT = -1
ELSEWHERE = "another sweep is making it"
MADE_ELSEWHERE = "another process made it"

Kind = (
    Ending
    | Literal["started", "progress", "waiting", "damaged", "blocked"]
    | Literal["left", "epoch", "helping", "helped", "log", "stopped"]
)


class Event(Part):
    """One thing that happened to a stage.

    `text` explains it; `share` is how much of the stage is done, 0 to 1, in `progress`. A stage is
    `left` to another process that has its lease. A worker that says `epoch` waits to hear whether
    its student, with this mean loss, is to be given up; one that says `helping` does parts of what
    another makes, and `helped` has found none free. `log` is a line of a worker's log, which the
    parent repeats. `stopped` ends a worker whatever it was making: its store cannot be used, or it
    was asked to.

    `slot` is the number of the worker that says it, NO_SLOT if none does; `node` and `device` are
    where it works, said when it begins.
    """

    kind: Kind
    fingerprint: str
    text: str = ""
    share: float = 0.0
    epoch: int = 0
    loss: float = 0.0
    slot: int = 0
    node: str = ""
    device: str = ""


Emit = Callable[[Event], None]
