"""The contract of a backend: it makes batches of ready stages on whatever it has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spar_bench.engine.events import Emit
from spar_bench.engine.workplan import WorkPlan
from spar_bench.stages.base import Stage
from spar_bench.store import Store

Make = Callable[[WorkPlan, list[Stage], Emit], None]


@dataclass(frozen=True)
class Setup:
    """What a backend may use.

    `make` makes a batch in this process, `help` does parts of one that another makes; `check` is to
    be called while waiting and may raise; `prune` takes a student's epoch and mean loss, and
    returns why it is given up, or "". `devices` has one name for each worker, `threads` and
    `workers` are those of each, None for its default; `processes` workers train a student together.
    `on` is the address of a cluster, for a backend that has one.
    """

    store: Store
    devices: Sequence[str]
    threads: int | None
    workers: int | None
    make: Make
    help: Make
    check: Callable[[], None]
    prune: Callable[[int, float], str]
    on: str | None = None
    processes: int = 1


class Backend(Protocol):
    """A backend plug-in: a module of this folder with a class `Backend`, and its `VERSION`."""

    def __init__(self, setup: Setup) -> None: ...

    def use(self, plan: WorkPlan) -> None:
        """Take the plan whose stages are submitted from now on; a search has one a trial."""
        ...

    def room(self, stage: Stage) -> int:
        """Return how many batches of such stages can be submitted now, 0 if none."""
        ...

    def submit(self, batch: list[Stage], emit: Emit) -> None:
        """Make stages together, now or in the background; each gets an event that ends it.

        Or `left`, if another process has its lease; it is then submitted again, once that has not.
        """
        ...

    def help(self, batch: list[Stage], emit: Emit) -> None:
        """Do parts of stages that another process makes, until none is free; then `helped` ends it.

        Only asked for where there is room.
        """
        ...

    def wait(self) -> None:
        """Wait a moment until something has happened to a submitted batch, and emit it.

        Raises:
            StoreError: a worker cannot use the store.
        """
        ...

    def close(self) -> None:
        """End whatever still works, where nothing is lost."""
        ...
