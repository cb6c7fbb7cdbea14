"""A worker process: makes batches that another process names, and says how they went.

Messages come in on standard input and events go out on standard output, both JSON; see
`backends._pool`. Our own log goes out as events, too; whatever else is printed while a batch is
made goes to the log of its first stage in the store.
"""

import logging
import threading
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from spar_bench.engine.events import Emit, Event
from spar_bench.engine.parent import Parent, take_output
from spar_bench.engine.workplan import read_work_plan
from spar_bench.errors import Interrupted, NotReady, Pruned, StoreError
from spar_bench.opening import open_store
from spar_bench.processes import meeting
from spar_bench.run.context import Context, prepare_device, resolve_workers
from spar_bench.run.distributed import Ranks, joined
from spar_bench.run.printing import printing_to
from spar_bench.run.work import Worker


def work(
    path: Path,
    fingerprints: Iterable[str],
    *,
    store: Path,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    parent: Parent | None = None,
    out: IO[str] | None = None,
) -> None:
    """Make stages of a plan: those named, or those that a parent names until it ends.

    Events are written to `out`, by default standard output, which then takes nothing else.

    Raises:
        NotReady: the plan cannot be read, or has no such stage, or the device is not available.
        StoreError: the store cannot be used.
        Interrupted: the parent has ended.
    """
    emit = _writer(out or take_output())
    plan, at = read_work_plan(path), prepare_device(device, threads)
    stop = threading.Event() if parent is None else parent.has_ended
    context = Context(open_store(store), at, stop=stop, workers=resolve_workers(workers, at))
    printing = nullcontext if parent is None else printing_to
    worker, named = Worker(plan, context, printing), list(fingerprints)
    unknown = [name for name in named if name not in plan.stages]
    if unknown:
        raise NotReady(f"{path}: must have every stage named, but has no {unknown[0]}; correct it")
    with joined(at) if meeting() else nullcontext(Ranks()) as context.ranks:
        for name in named:
            worker.make([plan.stages[name]], emit)
        if parent is not None:
            _serve(parent, {str(path): worker}, context, emit)


def _writer(out: IO[str]) -> Emit:
    """Return what writes an event as a line."""
    lock = threading.Lock()

    def emit(event: Event) -> None:
        try:
            with lock:
                out.write(event.model_dump_json(exclude_defaults=True) + "\n")
        except BrokenPipeError as error:  # the parent has ended
            raise Interrupted from error

    return emit


def _serve(parent: Parent, plans: dict[str, Worker], context: Context, emit: Emit) -> None:
    """Make what the parent names until its messages end."""
    logging.getLogger("spar_bench").handlers[:] = [_Told(emit)]
    context.prune = lambda epoch, loss: _ask(parent, emit, epoch, loss)
    try:
        while (message := parent.hear()) is not None:
            if message["plan"] not in plans:  # a search has a plan for each of its trials
                plan = read_work_plan(Path(message["plan"]))
                plans = {message["plan"]: Worker(plan, context, printing_to)}
            worker = plans[message["plan"]]
            if names := message.get("make"):
                worker.make([worker.plan.stages[name] for name in names], emit)
            elif names := message.get("help"):
                worker.help([worker.plan.stages[name] for name in names], emit)
    except Interrupted:
        return
    except StoreError as error:
        emit(Event(kind="stopped", fingerprint="", text=str(error)))


class _Told(logging.Handler):
    """Has the parent repeat what is logged."""

    def __init__(self, emit: Emit) -> None:
        super().__init__()
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        """Emit a record as an event."""
        self._emit(Event(kind="log", fingerprint="", text=self.format(record)))


def _ask(parent: Parent, emit: Emit, epoch: int, loss: float) -> None:
    """Ask the parent whether a student is to be given up."""
    emit(Event(kind="epoch", fingerprint="", epoch=epoch, loss=loss))
    answer = parent.hear()
    if answer is None:
        raise Interrupted
    if answer["reason"]:
        raise Pruned(answer["reason"])
