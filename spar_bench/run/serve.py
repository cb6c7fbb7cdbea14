"""A worker process: makes batches that another process names, and says how they went.

Lines come in on standard input and events go out on standard output, both JSON; see
`backends.subprocesses`. Whatever else is printed goes to standard error.
"""

import json
import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import IO, Any

from spar_bench.engine.events import Emit, Event
from spar_bench.engine.workplan import read_work_plan
from spar_bench.errors import NotReady, StoreError
from spar_bench.run.context import Context, Interrupted, Pruned, prepare_device, resolve_workers
from spar_bench.run.work import Worker
from spar_bench.store import Store

LAST_MOMENTS_S = 8.0
"""Seconds between the end of the input and that of this process, whatever it is doing."""


@dataclass
class _Lines:
    """The parent's messages, read by a thread that stops the work when they end."""

    context: Context
    messages: "Queue[dict[str, Any] | None]" = field(default_factory=Queue)

    def listen(self, stream: IO[str]) -> None:
        for line in stream:
            self.messages.put(json.loads(line))
        self.messages.put(None)
        self.context.stop.set()
        threading.Timer(LAST_MOMENTS_S, os._exit, [1]).start()


def work(
    path: Path,
    fingerprints: Iterable[str],
    *,
    store: Path,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
) -> None:
    """Make stages of a plan: those named, then with `-` those that the parent names.

    Raises:
        NotReady: the plan cannot be read, or has no such stage, or the device is not available.
        StoreError: the store cannot be used.
        Interrupted: the parent has ended.
    """
    emit = _take_output()
    plan, at = read_work_plan(path), prepare_device(device, threads)
    context = Context(Store(store), at, workers=resolve_workers(workers, at))
    worker, named = Worker(plan, context), list(fingerprints)
    unknown = [name for name in named if name != "-" and name not in plan.stages]
    if unknown:
        raise NotReady(f"{path}: must have every stage named, but has no {unknown[0]}; correct it")
    if "-" in named:
        _serve({str(path): worker}, context, emit)
    else:
        for name in named:
            worker.make([plan.stages[name]], emit)


def _take_output() -> Emit:
    """Return what writes events to standard output, which then takes nothing else."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print what they like
    lock = threading.Lock()

    def emit(event: Event) -> None:
        try:
            with lock:
                out.write(event.model_dump_json(exclude_defaults=True) + "\n")
        except BrokenPipeError as error:  # the parent has ended
            raise Interrupted from error

    return emit


def _serve(plans: dict[str, Worker], context: Context, emit: Emit) -> None:
    """Make what the parent names until its messages end."""
    lines = _Lines(context)
    threading.Thread(target=lines.listen, args=(sys.stdin,), daemon=True).start()
    context.prune = lambda epoch, loss: _ask(lines, emit, epoch, loss)
    try:
        while (message := lines.messages.get()) is not None:
            if message["plan"] not in plans:  # a search has a plan for each of its trials
                plans = {message["plan"]: Worker(read_work_plan(Path(message["plan"])), context)}
            worker = plans[message["plan"]]
            worker.make([worker.plan.stages[name] for name in message["make"]], emit)
    except Interrupted:
        return
    except StoreError as error:
        emit(Event(kind="stopped", fingerprint="", text=str(error)))


def _ask(lines: _Lines, emit: Emit, epoch: int, loss: float) -> None:
    """Ask the parent whether a student is to be given up."""
    emit(Event(kind="epoch", fingerprint="", epoch=epoch, loss=loss))
    answer = lines.messages.get()
    if answer is None:
        raise Interrupted
    if answer["reason"]:
        raise Pruned(answer["reason"])
