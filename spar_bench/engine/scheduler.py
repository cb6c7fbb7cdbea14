"""Make the missing stages of a plan: the ready ones go to a backend, in the order of the plan.

What another sweep on the store is making is left to it; others go first. A slot that has nothing to
do helps with what takes long, there or here.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Literal, Protocol

from spar_bench.backends.base import Backend
from spar_bench.engine.events import (
    ELSEWHERE,
    ENDINGS,
    MADE_ELSEWHERE,
    NO_SLOT,
    RELEASES,
    Emit,
    Event,
    Kind,
)
from spar_bench.engine.helping import Helping
from spar_bench.engine.workplan import Retries
from spar_bench.failures import Failure
from spar_bench.leases import POLL_S
from spar_bench.plan.trials import Plan
from spar_bench.stage import Damaged
from spar_bench.stages.base import Stage

Outcome = Literal["found", "made", "failed", "blocked", "pruned", "skipped"]
AGAIN_S = 10.0
"""Seconds until a stage is given again that its worker has left to another sweep: hosts may see at
different times that this one has died."""
_NOT_THERE = ("failed", "blocked", "pruned", "skipped")


class Shelf(Protocol):
    """What a scheduler asks a store."""

    def find(self, stage: Stage) -> object | None:
        """Return a finished stage, or None; raises Damaged."""
        ...

    def has(self, stage: Stage) -> bool:
        """Return whether a stage is finished and intact."""
        ...

    def failure(self, stage: Stage) -> Failure | None:
        """Return why the last attempt at a stage failed, or None."""
        ...

    def is_being_made(self, fingerprint: str) -> bool:
        """Return whether a process makes a stage now."""
        ...

    def is_made_here(self, fingerprint: str) -> bool:
        """Return whether one does whose parts others can do."""
        ...


@dataclass
class Scheduler:
    """Makes stages once their inputs are there; a failed one does not stop the others.

    Args:
        plan: The stages, in an order in which each comes after its inputs.
        store: Where they are, once finished.
        backend: Makes them.
        wanted: Fingerprints of everything that will be asked for: evaluations that share windows
            are made together, even if they are asked for one after the other.
        notify: Receives every event.
        retries: Which past failures are final.
        check: Called between stages; may raise to stop.
        fail_fast: Make nothing more after the first failure.
        clock: Returns the time in seconds.
    """

    plan: Plan
    store: Shelf
    backend: Backend
    wanted: set[str]
    notify: Emit
    retries: Retries = field(default_factory=Retries)
    check: Callable[[], None] = lambda: None
    fail_fast: bool = False
    clock: Callable[[], float] = time.monotonic
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the stages by what is made together."""
        self._sharing: dict[str, list[Stage]] = {}
        for stage in self.plan.stages.values():
            self._sharing.setdefault(stage.batch_key, []).append(stage)
        self._running: set[str] = set()
        self._settled: deque[str] = deque()
        self._returned: deque[str] = deque()
        self._left: dict[str, float] = {}
        self._absent: set[str] = set()
        self._helping = Helping(self.backend, self.notify, self.clock)
        self._has_failed = "failed" in self.outcomes.values()

    def make(
        self, fingerprints: Iterable[str], *, ended: Callable[[str], None] = lambda _: None
    ) -> bool:
        """Make stages and what they are made from; return whether there was anything to make.

        The inputs of a finished stage are not made again; if one that is read is damaged, it is.
        `ended` receives each of the stages as soon as it is settled.

        Raises:
            Interrupted: the user asked to stop; unfinished work resumes where it stopped.
            StoreError: the store is not writable.
            OutOfStep: a process failed while others train with it.
        """
        asked = set(fingerprints)
        needed = self.plan.needed_by(asked)
        lacking = self._lacking(asked, needed)
        queue = _Queue(
            stage
            for key, stage in self.plan.stages.items()
            if key in lacking and self._is_open(key)
        )
        for fingerprint in asked - queue.waiting.keys():
            ended(fingerprint)
        while queue.waiting or self._running or self._helping.n_helpers:
            stage = self._next(queue)
            if stage is not None and (room := self.backend.room(stage)):
                self.check()
                self._submit(stage, queue, room)
            elif not (self._settled or self._helping.help()):
                self._wait()
            while self._returned:
                queue.put_back(self.plan.stages[self._returned.popleft()])
            while self._settled:
                fingerprint = self._settled.popleft()
                queue.settle(fingerprint)
                self._helping.end([fingerprint])
                if fingerprint in asked:
                    ended(fingerprint)
        return any(self.outcomes.get(fingerprint, "found") != "found" for fingerprint in needed)

    def _next(self, queue: "_Queue") -> Stage | None:
        """Return the first stage that is ready and not made by another sweep now.

        One that comes before and needs no work is settled instead, and None returned.
        """
        with closing(queue.in_order()) as ready:
            for stage in ready:
                if self._settles(stage):
                    self._settled.append(stage.fingerprint)
                    return None
                if not self._is_others(stage):
                    return stage
                self._leave(stage)
        return None

    def _is_others(self, stage: Stage) -> bool:
        """Return whether another sweep makes a stage, as is seen here or a worker has just seen."""
        seen_at = self._left.get(stage.fingerprint, -math.inf)
        return self.store.is_being_made(stage.fingerprint) or self.clock() - seen_at < AGAIN_S

    def _leave(self, stage: Stage) -> None:
        """Leave a stage to another sweep, but help that once it takes long, if it is made here."""
        if stage.fingerprint not in self._left:
            self._left[stage.fingerprint] = -math.inf
            self._tell("waiting", stage.fingerprint, ELSEWHERE)
        if self.store.is_made_here(stage.fingerprint):
            self._helping.begin(
                [
                    one
                    for one in self._together(stage)
                    if one is stage or self.store.is_made_here(one.fingerprint)
                ]
            )

    def _wait(self) -> None:
        """Wait until something may have happened: here, or if nothing is made here, elsewhere."""
        self.check()
        if not (self._running or self._helping.n_helpers):
            time.sleep(POLL_S)
        self.backend.wait()

    def _submit(self, stage: Stage, queue: "_Queue", room: int) -> None:
        """Give a ready stage to the backend, with those that are made together with it.

        What may be divided is, evenly, among as many slots as its share of the work that is ready.
        """
        batch = [one for one in self._together(stage) if one is stage or not self._is_others(one)]
        if stage.divisible:
            batch.sort(key=lambda one: one is not stage)
            batch = batch[: -(-len(batch) // self._fair(batch, queue, room))]
        for one in batch:
            queue.take(one.fingerprint)
        self._running.update(one.fingerprint for one in batch)
        self._helping.end(one.fingerprint for one in batch)
        self._helping.begin(batch)
        self.backend.submit(batch, self._receive)

    def _fair(self, batch: list[Stage], queue: "_Queue", room: int) -> int:
        """Return among how many slots a batch is divided: those with room, or more that will have.

        Slots that make others now will be free for it, if little else is ready for them.
        """
        stages = self.plan.stages
        busy = {stages[key].batch_key for key in self._running} - {batch[0].batch_key}
        if not busy:
            return room
        work = batch[0].gflops_of_batch(batch, stages)
        others = sum(
            other.estimate(stages).gflops
            for other in queue.ready()
            if other.batch_key != batch[0].batch_key
        )
        n_slots = room + len(busy)
        share = math.ceil(n_slots * work / (work + others)) if work else n_slots
        return max(share, room)

    def _receive(self, event: Event) -> None:
        """Take what happened to a submitted stage."""
        if event.kind == "progress":
            self._helping.go_on(event.fingerprint, event.share)
        if event.kind in RELEASES:
            self._running.discard(event.fingerprint)
        was_left = event.kind == "left" and event.fingerprint in self._left
        if event.kind == "left":
            self._left[event.fingerprint] = self.clock()
            self._helping.end([event.fingerprint])
            self._returned.append(event.fingerprint)
        if event.kind in ENDINGS:
            self._settled.append(event.fingerprint)
            self.outcomes[event.fingerprint] = event.kind
            self._has_failed |= event.kind == "failed"
            if event.text and event.kind != "made":
                self.reasons[event.fingerprint] = event.text
        if not was_left:  # which is told once
            self.notify(event)

    def _is_open(self, fingerprint: str) -> bool:
        return self.outcomes.get(fingerprint) in (None, "skipped")

    def _lacking(self, asked: set[str], needed: set[str]) -> set[str]:
        """Return the stages asked for, the inputs of missing ones, and all damaged ones."""
        lacking = set(asked)
        for fingerprint, stage in reversed(self.plan.stages.items()):
            if fingerprint not in needed or not self._is_open(fingerprint):
                continue
            try:
                is_there = self.store.find(stage) is not None
            except Damaged:
                is_there = False
                lacking.add(fingerprint)
            if not is_there:
                self._absent.add(fingerprint)
            if fingerprint in lacking and not is_there and not self._given_up(stage):
                lacking.update(stage.inputs.values())
        return lacking

    def _given_up(self, stage: Stage) -> bool:
        return self.retries.given_up(self.store.failure(stage)) is not None

    def _settles(self, stage: Stage) -> bool:
        """Settle a stage that needs no work, or cannot be made; return whether it is settled."""
        lost = [i for i in stage.inputs.values() if self.outcomes.get(i) in _NOT_THERE]
        if self.store.has(stage):
            self.outcomes[stage.fingerprint] = "found"
            if stage.fingerprint in self._absent:
                self._tell("found", stage.fingerprint, MADE_ELSEWHERE)
        elif (past := self.retries.given_up(self.store.failure(stage))) is not None:
            self._end(stage, past.outcome, past.reason)
        elif any(self.outcomes[i] != "skipped" for i in lost):
            reason = next(self.reasons[i] for i in lost if i in self.reasons)
            if {self.outcomes[i] for i in lost} == {"pruned"}:
                self._end(stage, "pruned", reason)
            else:
                self._end(stage, "blocked", f"a stage that it needs was not made: {reason}")
        elif lost or (self.fail_fast and self._has_failed):
            self.outcomes[stage.fingerprint] = "skipped"
        else:
            return False
        return True

    def _end(
        self, stage: Stage, outcome: Literal["failed", "pruned", "blocked"], reason: str
    ) -> None:
        self.outcomes[stage.fingerprint] = outcome
        self.reasons[stage.fingerprint] = reason
        self._has_failed |= outcome == "failed"
        self._tell(outcome, stage.fingerprint, reason)

    def _tell(self, kind: Kind, fingerprint: str, text: str) -> None:
        """Tell what no worker says."""
        self.notify(Event(kind=kind, fingerprint=fingerprint, text=text, slot=NO_SLOT))

    def _together(self, stage: Stage) -> list[Stage]:
        """Return the missing stages made together with one, such as those that share windows."""
        return [
            other
            for other in self._sharing[stage.batch_key]
            if (other is stage or other.fingerprint in self.wanted)
            and self._is_open(other.fingerprint)
            and other.fingerprint not in self._running
            and not self.store.has(other)
        ]


class _Queue:
    """Stages by readiness: the first in the plan's order whose inputs are settled comes first.

    Every operation takes a time that does not grow with the plan, but for a logarithm.
    """

    def __init__(self, stages: Iterable[Stage]) -> None:
        self.waiting = {stage.fingerprint: stage for stage in stages}
        self._position = {key: index for index, key in enumerate(self.waiting)}
        self._used_by: dict[str, list[str]] = {}
        self._n_open: Counter[str] = Counter()
        for key, stage in self.waiting.items():
            for needed in set(stage.inputs.values()) & self.waiting.keys():
                self._used_by.setdefault(needed, []).append(key)
                self._n_open[key] += 1
        self._ready = [(i, key) for key, i in self._position.items() if not self._n_open[key]]
        heapify(self._ready)

    def in_order(self) -> Generator[Stage]:
        """Yield the stages that could be made now, in the plan's order; close it before changes."""
        seen = list[tuple[int, str]]()
        try:
            while self._ready:
                place, key = heappop(self._ready)
                if key in self.waiting:
                    seen.append((place, key))
                    yield self.waiting[key]
        finally:
            for item in seen:
                heappush(self._ready, item)

    def ready(self) -> list[Stage]:
        """Return the stages that could be made now."""
        return [self.waiting[key] for _, key in self._ready if key in self.waiting]

    def take(self, fingerprint: str) -> None:
        """Take a stage out that is being made; what is made from it goes on waiting."""
        self.waiting.pop(fingerprint, None)

    def put_back(self, stage: Stage) -> None:
        """Let a stage be made that was taken out, if it was ever in."""
        key = stage.fingerprint
        if key in self._position:
            self.waiting[key] = stage
            if (self._position[key], key) not in self._ready:  # where what is taken may stay
                heappush(self._ready, (self._position[key], key))

    def settle(self, fingerprint: str) -> None:
        """Take a stage out; what waited for it alone is ready."""
        self.take(fingerprint)
        for key in self._used_by.pop(fingerprint, ()):
            self._n_open[key] -= 1
            if not self._n_open[key] and key in self.waiting:
                heappush(self._ready, (self._position[key], key))
