"""Make the missing stages of a plan: the ready ones go to a backend, in the order of the plan."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from spar_bench.backends.base import Backend
from spar_bench.engine.events import ENDINGS, Emit, Event
from spar_bench.engine.workplan import Retries
from spar_bench.plan.trials import Plan
from spar_bench.stage import Damaged
from spar_bench.stages.base import Stage
from spar_bench.store import Store

Outcome = Literal["found", "made", "failed", "blocked", "pruned", "skipped"]
_NOT_THERE = ("failed", "blocked", "pruned", "skipped")


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
    """

    plan: Plan
    store: Store
    backend: Backend
    wanted: set[str]
    notify: Emit
    retries: Retries = field(default_factory=Retries)
    check: Callable[[], None] = lambda: None
    fail_fast: bool = False
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the stages by what is made together."""
        self._sharing: dict[str, list[Stage]] = {}
        for stage in self.plan.stages.values():
            self._sharing.setdefault(stage.batch_key, []).append(stage)
        self._running: set[str] = set()

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
        pending = {
            key: stage
            for key, stage in self.plan.stages.items()
            if key in lacking and self._is_open(key)
        }
        unsettled = asked & pending.keys()
        while pending or self._running:
            self._advance(pending)
            for fingerprint in unsettled - pending.keys() - self._running:
                unsettled.discard(fingerprint)
                ended(fingerprint)
            if self._running:
                self.backend.wait()
        for fingerprint in unsettled:
            ended(fingerprint)
        return any(self.outcomes.get(fingerprint, "found") != "found" for fingerprint in needed)

    def _advance(self, pending: dict[str, Stage]) -> None:
        """Settle or submit stages whose inputs are settled, in order, as far as there is room."""
        for fingerprint, stage in list(pending.items()):
            if fingerprint not in pending:  # submitted with an earlier one
                continue
            if any(key in pending or key in self._running for key in stage.inputs.values()):
                continue
            if self._settles(stage):
                del pending[fingerprint]
                continue
            if not self.backend.has_room(stage):
                return
            self.check()
            batch = self._batch(stage)
            for one in batch:
                pending.pop(one.fingerprint, None)
            self._running.update(one.fingerprint for one in batch)
            self.backend.submit(batch, self._receive)

    def _receive(self, event: Event) -> None:
        """Take what happened to a submitted stage."""
        if event.kind in ENDINGS:
            self._running.discard(event.fingerprint)
            self.outcomes[event.fingerprint] = event.kind
            if event.text and event.kind != "made":
                self.reasons[event.fingerprint] = event.text
        if event.kind != "found":
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
            if fingerprint in lacking and not is_there and not self._given_up(stage):
                lacking.update(stage.inputs.values())
        return lacking

    def _given_up(self, stage: Stage) -> bool:
        return self.retries.given_up(self.store, stage) is not None

    def _settles(self, stage: Stage) -> bool:
        """Settle a stage that needs no work, or cannot be made; return whether it is settled."""
        lost = [i for i in stage.inputs.values() if self.outcomes.get(i) in _NOT_THERE]
        if self._is_found(stage):
            self.outcomes[stage.fingerprint] = "found"
        elif (past := self.retries.given_up(self.store, stage)) is not None:
            self._end(stage, past.outcome, past.reason)
        elif any(self.outcomes[i] != "skipped" for i in lost):
            reason = next(self.reasons[i] for i in lost if i in self.reasons)
            if {self.outcomes[i] for i in lost} == {"pruned"}:
                self._end(stage, "pruned", reason)
            else:
                self._end(stage, "blocked", f"a stage that it needs was not made: {reason}")
        elif lost or (self.fail_fast and "failed" in self.outcomes.values()):
            self.outcomes[stage.fingerprint] = "skipped"
        else:
            return False
        return True

    def _end(
        self, stage: Stage, outcome: Literal["failed", "pruned", "blocked"], reason: str
    ) -> None:
        self.outcomes[stage.fingerprint] = outcome
        self.reasons[stage.fingerprint] = reason
        self.notify(Event(kind=outcome, fingerprint=stage.fingerprint, text=reason))

    def _batch(self, stage: Stage) -> list[Stage]:
        """Return the missing stages made together with one, such as those that share windows."""
        return [
            other
            for other in self._sharing[stage.batch_key]
            if other.fingerprint in self.wanted | {stage.fingerprint}
            and self._is_open(other.fingerprint)
            and other.fingerprint not in self._running
            and not self._is_found(other)
        ]

    def _is_found(self, stage: Stage) -> bool:
        """Return whether a stage is finished; a damaged one counts as missing."""
        try:
            return self.store.find(stage) is not None
        except Damaged:
            return False
