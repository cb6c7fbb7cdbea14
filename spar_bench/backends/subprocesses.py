"""One worker process a device, or several on the CPU: JSON lines in and out.

A worker is `spar-bench work PLAN -`. It reads a line for each batch, `{"plan": PATH, "make":
[FINGERPRINT, ...]}`, and an answer to each event `epoch`, `{"reason": ""}`. It stops in its own
time after `{"stop": true}`, and soon when its input ends, so none outlives this process. A worker
that dies is replaced, and its batch tried once more.
"""

import json
import logging
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from spar_bench.backends import in_process
from spar_bench.backends.base import Setup
from spar_bench.engine.events import ENDINGS, Emit, Event
from spar_bench.engine.parent import STOP
from spar_bench.engine.workplan import WorkPlan
from spar_bench.errors import StoreError
from spar_bench.stages.base import Stage

log = logging.getLogger(__name__)

VERSION = 1
TRIES = 2
"""How often a batch is given to a worker, if workers die while making it."""
POLL_S = 0.5
GRACE_S = 20.0
"""Seconds that workers get, once told to stop, to reach a point where nothing is lost."""


@dataclass(eq=False)
class _Worker:
    """A worker process on the device of its index, and the batch that it is making."""

    index: int
    process: "subprocess.Popen[str]"
    batch: list[Stage] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    emit: Emit = lambda _: None


class Backend:
    """Makes batches in worker processes, one batch each at a time.

    A stage that takes the whole machine is made in this process, once no worker is busy.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup, self._here = setup, in_process.Backend(setup)
        self._plan = Path()
        self._workers: list[_Worker] = []
        self._events: queue.Queue[tuple[_Worker, Event | None]] = queue.Queue()
        self._tries: dict[str, int] = {}

    def use(self, plan: WorkPlan) -> None:
        """Write the plan where workers read it."""
        self._here.use(plan)
        self._plan = plan.save(self._setup.store.root / "plans")

    def room(self, stage: Stage) -> int:
        """Return how many workers are idle; for a stage that takes the machine, 1 if all are."""
        n_busy = sum(bool(worker.open) for worker in self._workers)
        return int(n_busy == 0) if stage.alone else len(self._setup.devices) - n_busy

    def submit(self, batch: list[Stage], emit: Emit) -> None:
        """Give a batch to an idle worker, started if need be; or make it here, alone."""
        if batch[0].alone:
            self._here.submit(batch, emit)
            return
        worker = next((one for one in self._workers if not one.open), None) or self._start()
        worker.batch, worker.emit = batch, emit
        worker.open = {stage.fingerprint for stage in batch}
        for stage in batch:
            self._tries[stage.fingerprint] = self._tries.get(stage.fingerprint, 0) + 1
        names = [stage.fingerprint for stage in batch]
        _tell(worker, {"plan": str(self._plan), "make": names})

    def wait(self) -> None:
        """Emit the next thing that a worker says.

        Raises:
            StoreError: a worker cannot use the store.
        """
        while any(worker.open for worker in self._workers):
            self._setup.check()
            with suppress(queue.Empty):
                self._take(*self._events.get(timeout=POLL_S))
                return

    def close(self) -> None:
        """End all workers where nothing is lost; kill those that take too long."""
        for worker in self._workers:
            _tell(worker, STOP)
        ends_at = time.monotonic() + GRACE_S
        for worker in self._workers:
            try:
                worker.process.wait(timeout=max(ends_at - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            _hang_up(worker)
        self._workers.clear()

    def _start(self) -> _Worker:
        """Start a worker on the first device that has none."""
        taken = {worker.index for worker in self._workers}
        index = next(i for i in range(len(self._setup.devices)) if i not in taken)
        options = {"threads": self._setup.threads, "workers": self._setup.workers}
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "spar_bench", "work", str(self._plan), "-"),
                *("--store", str(self._setup.store.root)),
                *("--device", self._setup.devices[index]),
                *(f"--{name}={value}" for name, value in options.items() if value is not None),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends them
        )
        worker = _Worker(index, process)
        self._workers.append(worker)
        threading.Thread(target=self._read, args=(worker,), daemon=True).start()
        return worker

    def _read(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None, "workers are started with a pipe"
        try:
            with worker.process.stdout as events:
                for line in events:
                    self._events.put((worker, Event.model_validate_json(line)))
        except ValidationError:  # half a line of one that ended, or what a library printed
            log.exception("a worker wrote a line that is no event, and is replaced")
            worker.process.kill()
        worker.process.wait()
        self._events.put((worker, None))

    def _take(self, worker: _Worker, event: Event | None) -> None:
        if event is None:
            self._replace(worker)
        elif event.kind == "stopped":
            raise StoreError(event.text)
        elif event.kind == "epoch":
            _tell(worker, {"reason": self._setup.prune(event.epoch, event.loss)})
        else:
            if event.kind in ENDINGS:
                worker.open.discard(event.fingerprint)
            worker.emit(event)

    def _replace(self, worker: _Worker) -> None:
        """Drop a worker that died; try its batch again, or give it up."""
        if worker not in self._workers:  # closed
            return
        _hang_up(worker)
        self._workers.remove(worker)
        left = [stage for stage in worker.batch if stage.fingerprint in worker.open]
        again = [stage for stage in left if self._tries[stage.fingerprint] < TRIES]
        for stage in left:
            if stage not in again:
                text = f"its worker ended with code {worker.process.returncode}, {TRIES} times"
                worker.emit(Event(kind="failed", fingerprint=stage.fingerprint, text=text))
        if again:
            self.submit(again, worker.emit)


def _hang_up(worker: _Worker) -> None:
    """Close a worker's input, which ends it if it still runs."""
    assert worker.process.stdin is not None, "workers are started with a pipe"
    with suppress(BrokenPipeError):
        worker.process.stdin.close()


def _tell(worker: _Worker, message: Mapping[str, object]) -> None:
    assert worker.process.stdin is not None, "workers are started with a pipe"
    with suppress(BrokenPipeError):  # it has died, which its reader reports
        worker.process.stdin.write(json.dumps(message) + "\n")
        worker.process.stdin.flush()
