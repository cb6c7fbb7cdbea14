"""Plans scheduled over a pool of two workers, and workers that are killed at first progress."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from spar_bench.backends._pool import Pool
from spar_bench.backends.base import Setup
from spar_bench.engine.events import Event
from spar_bench.engine.scheduler import Scheduler
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.plan.trials import Plan
from spar_bench.stages.base import Stage
from spar_bench.stages.student import TRAINED_FILE
from spar_bench.store import Store
from tests.run.tiny import Notes, finished


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


def listening(word: str) -> dict[str, list[str]]:
    """Return the addresses on which processes listen, in the kernel's notation, by command line.

    Only of those whose command line has a word.
    """
    address_of = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A":
                address_of[f"socket:[{cells[9]}]"] = cells[1].partition(":")[0]
    found: dict[str, list[str]] = {}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            command = (folder.parent / "cmdline").read_text()
            sockets = [os.readlink(one) for one in folder.iterdir()]
        except OSError:
            continue
        if word in command:
            here = [address_of[one] for one in sockets if one in address_of]
            found.setdefault(command.replace("\0", " "), []).extend(here)
    return found


def on_progress(
    making: Scheduler, notes: Notes, stage: Stage, look: Callable[[], dict[str, list[str]]]
) -> dict[str, list[str]]:
    """Look once, at the first progress of a stage; return what is seen, once it is."""
    seen = dict[str, list[str]]()

    def note(event: Event) -> None:
        notes(event)
        if event.kind == "progress" and event.fingerprint == stage.fingerprint and not seen:
            seen.update(look())

    making.notify = note
    return seen


def require_by_two(student: Stage, store: Store, whole: Store) -> None:
    """Require that two processes trained a student, to the weights of one process elsewhere."""
    made, alone = (finished(one, student) for one in (store, whole))
    assert made.manifest["made"]["processes"] == 2
    weights, expected = (load_file(one.path(TRAINED_FILE)) for one in (made, alone))
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert np.allclose(weights[name], value, rtol=1e-5, atol=1e-7)


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


def require_each_made_once(making: Scheduler, notes: Notes) -> None:
    """Require that each stage was made once, even if the worker that made one died at that.

    Nobody reports such a stage as made; it is found in the store.
    """
    assert set(making.outcomes.values()) <= {"made", "found"}
    ended = [*notes.kinds("made"), *notes.kinds("found")]
    assert sorted(ended) == sorted(stage.kind for stage in making.plan.stages.values())
