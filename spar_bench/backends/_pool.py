"""Workers that take one batch at a time, wherever they run; those that die are replaced.

A worker takes a slot, or several where processes train a student together.

A worker is `spar-bench work PLAN -`. It reads a line for each batch, `{"plan": PATH, "make":
[FINGERPRINT, ...]}`, or `"help"` if another makes it and its parts are to be done, and an answer to
each event `epoch`, `{"reason": ""}`; it writes its events. It stops in its own time after `{"stop":
true}`, and soon when its input ends, so none outlives this process.
"""

import json
import logging
import queue
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from spar_bench import processes
from spar_bench.backends import in_process
from spar_bench.backends._link import Link
from spar_bench.backends.base import Setup
from spar_bench.engine.events import NO_SLOT, RELEASES, Emit, Event
from spar_bench.engine.parent import STOP
from spar_bench.engine.workplan import WorkPlan
from spar_bench.errors import StoreError
from spar_bench.stages.base import Stage

log = logging.getLogger(__name__)

TRIES = 2
"""How many workers may die while making a stage; then it is given up."""
POLL_S = 0.5
SILENT_S = 30.0
"""Seconds after which a worker that has not said anything yet is reported to wait."""
IDLE_S = 60.0
"""Seconds after which an idle worker is ended, which gives back what it holds of its device."""
GRACE_S = 20.0
"""Seconds that workers get, once told to stop, to reach a point where nothing is lost."""


@dataclass(eq=False)
class Worker:
    """A worker and its slots, and the batch that it is making, or helps with.

    `meeting` is the file by which its processes find each other, if it has several. It
    `may_be_dead` while it has said nothing since it was given its batch, if it had others before.
    """

    slots: Sequence[int]
    link: Link
    meeting: Path | None = None
    batch: list[Stage] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    emit: Emit = lambda _: None
    helps: bool = False
    may_be_dead: bool = False
    idle_since: float = 0.0
    silent_since: float | None = field(default_factory=time.monotonic)

    def say(self, event: Event) -> None:
        """Pass on what it says, with the number of its first slot."""
        self.emit(event.model_copy(update={"slot": self.slots[0]}))

    def tell(self, message: dict[str, object]) -> None:
        """Send it a message."""
        self.link.tell(json.dumps(message))

    def forget(self) -> None:
        """Give back what it used, once it has ended."""
        self.link.close()
        if self.meeting is not None:
            with suppress(OSError):
                self.meeting.unlink(missing_ok=True)


class Pool(ABC):
    """A backend of workers, each started in a slot of its own when a batch needs it.

    A stage that takes the whole machine is made in this process, once no worker is busy. WAITS_FOR
    says what a worker that has not started has waited for.
    """

    WAITS_FOR = "a worker has been starting"

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._here = in_process.Backend(setup)
        self._plan = Path()
        self._workers: list[Worker] = []
        self._events: queue.Queue[tuple[Worker, Event | None]] = queue.Queue()
        self._deaths: dict[str, list[str]] = {}

    @abstractmethod
    def n_slots(self) -> int:
        """Return how many workers there can be at once, at least 1."""

    @abstractmethod
    def launch(
        self, slots: Sequence[int], command: list[str], places: Sequence[Mapping[str, str]]
    ) -> Link:
        """Launch a worker in free slots, with a process in each.

        `command` is that of a worker but for `--device` and `--threads`; `places` has variables of
        each process's environment, by which they find each other.
        """

    def use(self, plan: WorkPlan) -> None:
        """Write the plan where workers read it."""
        self._here.use(plan)
        self._plan = plan.save(self.setup.store.root / "plans")

    def room(self, stage: Stage) -> int:
        """Return for how many batches slots are idle; for one that takes the machine, 1 if all.

        At least 1 if nothing is busy: what slots have gone may come again.
        """
        n_busy = sum(len(worker.slots) for worker in self._workers if worker.open)
        n_idle = 0 if stage.alone else max(self.n_slots() - n_busy, 0)
        return max(n_idle // self._slots_for(stage), int(n_busy == 0))

    def _slots_for(self, stage: Stage) -> int:
        return self.setup.processes if stage.joint else 1

    def submit(self, batch: list[Stage], emit: Emit) -> None:
        """Give a batch to an idle worker, started if need be; or make it here, alone."""
        if batch[0].alone:
            self._here.submit(batch, emit)
            return
        batch = self._without_deadly(batch, emit)
        if batch:
            self._give(batch, emit)

    def help(self, batch: list[Stage], emit: Emit) -> None:
        """Have an idle worker, started if need be, do parts of a batch."""
        self._give(batch, emit, helps=True)

    def _give(self, batch: list[Stage], emit: Emit, *, helps: bool = False) -> None:
        n_slots = 1 if helps else self._slots_for(batch[0])
        alike = (one for one in self._workers if not one.open and len(one.slots) == n_slots)
        idle = (one for one in alike if not one.link.has_ended(0))
        worker = next(idle, None) or self._start(n_slots)
        worker.may_be_dead = bool(worker.batch)
        worker.batch, worker.emit, worker.helps = batch, emit, helps
        names = [stage.fingerprint for stage in batch]
        worker.open = set(names)
        worker.tell({"plan": str(self._plan), "help" if helps else "make": names})

    def wait(self) -> None:
        """Emit the next thing that a worker says, if it says something soon.

        Raises:
            StoreError: a worker cannot use the store.
        """
        self.setup.check()
        try:
            self._take(*self._events.get(timeout=POLL_S))
        except queue.Empty:
            self._report_silent()
        self._end(self._dispensable())

    def _dispensable(self) -> list[Worker]:
        """Return the workers that have been idle for long, and as many as there are too many.

        A worker that was lost with its node is replaced before there is room; the new one then
        waits for what an idle one holds.
        """
        idle = [worker for worker in self._workers if not worker.open]
        if not idle:
            return []
        n_over = sum(len(worker.slots) for worker in self._workers) - self.n_slots()
        before, found = time.monotonic() - IDLE_S, list[Worker]()
        for worker in sorted(idle, key=lambda worker: worker.idle_since):
            if n_over > 0 or worker.idle_since < before:
                found.append(worker)
                n_over -= len(worker.slots)
        return found

    def close(self) -> None:
        """End all workers."""
        self._end(list(self._workers))

    def _end(self, workers: list[Worker]) -> None:
        """End workers where nothing is lost; kill those that take too long."""
        for worker in workers:
            worker.tell(dict(STOP))
        ends_at = time.monotonic() + GRACE_S
        for worker in workers:
            if not worker.link.has_ended(max(ends_at - time.monotonic(), 0)):
                worker.link.kill()
            worker.forget()
            self._workers.remove(worker)

    def _start(self, n: int) -> Worker:
        """Start a worker in the first n free slots; idle ones are ended if there are too few."""
        taken = sum(len(one.slots) for one in self._workers)
        if taken + n > self.n_slots():
            self._end([one for one in self._workers if not one.open])
        used = {slot for one in self._workers for slot in one.slots}
        slots = [i for i in range(len(used) + n) if i not in used][:n]
        command = [
            *(sys.executable, "-m", "spar_bench", "work", str(self._plan), "-"),
            *("--store", str(self.setup.store.root)),
        ]
        if self.setup.workers is not None:
            command += ["--workers", str(self.setup.workers)]
        meeting = self._plan.with_name(f"{uuid4().hex}.meeting") if n > 1 else None
        places = [{}] if meeting is None else processes.places(n, meeting)
        worker = Worker(slots, self.launch(slots, command, places), meeting)
        self._workers.append(worker)
        threading.Thread(target=self._read, args=(worker,), daemon=True).start()
        return worker

    def _read(self, worker: Worker) -> None:
        try:
            for line in worker.link.lines():
                self._events.put((worker, Event.model_validate_json(line)))
        except ValidationError:  # half a line of one that ended, or what a library printed
            log.exception("a worker wrote a line that is no event, and is replaced")
            worker.link.kill()
        except Exception:
            log.exception("a worker cannot be heard, and is replaced")
            worker.link.kill()
        finally:
            worker.link.has_ended(GRACE_S)
            self._events.put((worker, None))

    def _report_silent(self) -> None:
        """Say once of each worker that waits for its start, as where others hold the devices."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.silent_since is not None and now - worker.silent_since > SILENT_S:
                worker.silent_since = None
                text = f"{self.WAITS_FOR} for {SILENT_S:.0f} s"
                first = worker.batch[0].fingerprint
                worker.say(Event(kind="waiting", fingerprint=first, text=text))

    def _take(self, worker: Worker, event: Event | None) -> None:
        worker.silent_since = None
        worker.may_be_dead &= event is None
        if event is None:
            self._replace(worker)
        elif event.kind == "stopped":
            raise StoreError(event.text)
        elif event.kind == "log":
            log.warning("%s", event.text)
        elif event.kind == "epoch":
            worker.tell({"reason": self.setup.prune(event.epoch, event.loss)})
        else:
            if event.kind in RELEASES:
                worker.open.discard(event.fingerprint)
                worker.idle_since = time.monotonic()
            worker.say(event)

    def _replace(self, worker: Worker) -> None:
        """Drop a worker that died; try its batch again, or give it up."""
        if worker not in self._workers:  # closed
            return
        worker.forget()
        self._workers.remove(worker)
        left = [stage for stage in worker.batch if stage.fingerprint in worker.open]
        if worker.helps:  # others do the rest
            for stage in left:
                worker.say(Event(kind="helped", fingerprint=stage.fingerprint))
            return
        for stage in [] if worker.may_be_dead else left:
            self._deaths.setdefault(stage.fingerprint, []).append(worker.link.ending)
        left = self._without_deadly(left, worker.say)
        if left:
            self._give(left, worker.emit)

    def _without_deadly(self, batch: list[Stage], emit: Emit) -> list[Stage]:
        """Give up the stages of a batch with which too many workers have died; return the others.

        The last worker's lease may outlive it for a minute, if it was on another node.
        """
        store, kept = self.setup.store, list[Stage]()
        for stage in batch:
            deaths = self._deaths.get(stage.fingerprint, [])
            if len(deaths) < TRIES:
                kept.append(stage)
                continue
            text = "its last worker may not have ended, or another sweep is making it"
            told = Event(kind="left", fingerprint=stage.fingerprint, text=text, slot=NO_SLOT)
            with store.leases.hold_free([stage.fingerprint]) as own:
                if own and not store.has(stage):
                    reason = f"{deaths[-1]}, {TRIES} times"
                    store.fail(stage, reason, outcome="failed", final=False)
                    told = told.model_copy(update={"kind": "failed", "text": reason})
            emit(told)
        return kept
