"""Plans scheduled over a pool of two workers, and workers that are killed at first progress."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from spar_bench.backends._pool import Pool
from spar_bench.backends.base import Setup
from spar_bench.engine.events import Event
from spar_bench.engine.scheduler import Scheduler
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.plan.trials import Plan
from spar_bench.store import Store
from tests.run.tiny import Notes


@contextmanager
def two_workers(
    kind: Callable[[Setup], Pool], plan: Plan, store: Store, **further: Any
) -> Iterator[tuple[Scheduler, Notes]]:
    """Schedule a plan over two workers of a backend, on a CPU each."""
    setup = Setup(
        store=store,
        workers=None,
        threads=1,
        make=lambda *_: None,
        help=lambda *_: None,
        check=lambda: None,
        prune=lambda epoch, loss: "",
        **{"devices": ["cpu", "cpu"], **further},
    )
    notes, backend = Notes(plan), kind(setup)
    backend.use(WorkPlan(plan.stages, Retries()))
    try:
        yield Scheduler(plan, store, backend, set(plan.stages), notify=notes), notes
    finally:
        backend.close()


def kill_once(making: Scheduler, notes: Notes, found: Callable[[], list[int]]) -> list[int]:
    """Kill the processes that are found at the first progress; return them, once they are."""
    killed = list[int]()

    def kill(event: Event) -> None:
        notes(event)
        if event.kind == "progress" and not killed:
            killed.extend(found())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    making.notify = kill
    return killed
