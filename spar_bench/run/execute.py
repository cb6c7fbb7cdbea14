"""Make the missing stages of a plan, each once, whatever fails or is killed in between."""

import logging
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal

from spar_bench.errors import Diverged, LeaseLost, SparBenchError, StoreError, Unreadable
from spar_bench.plan.trials import Plan
from spar_bench.resolve import Resolver
from spar_bench.run.context import Context, Interrupted, Pruned
from spar_bench.run.distributed import OutOfStep
from spar_bench.stage import Damaged, Finished
from spar_bench.stages.base import Stage, Summary
from spar_bench.store import Failure

log = logging.getLogger(__name__)

Outcome = Literal["found", "made", "failed", "blocked", "pruned", "skipped"]
_NOT_THERE = ("failed", "blocked", "pruned", "skipped")
Maker = Callable[[list[Stage], Context], list[Summary | Exception]]
Note = Literal["started", "waiting", "made", "failed", "blocked", "pruned", "damaged"]


def maker_of(kind: type[Stage]) -> Maker:
    """Return the function that makes stages of a kind."""
    module, _, name = kind.maker.partition(":")
    maker: Maker = getattr(import_module(module), name)
    return maker


@dataclass
class Executor:
    """Makes stages in order; a failed one does not stop the others.

    Args:
        plan: The stages, in an order in which each comes after its inputs.
        context: Where and with what they are made.
        wanted: Fingerprints of everything that will be asked for: evaluations that share windows
            are made together, even if they are asked for one after the other.
        notify: Told of every stage that starts, ends, waits for another sweep, or is found damaged.
        retry: Also repeat stages that failed for good, such as a diverged student.
        fail_fast: Make nothing more after the first failure.
    """

    plan: Plan
    context: Context
    wanted: set[str]
    notify: Callable[[Note, Stage, str], None]
    retry: bool = False
    fail_fast: bool = False
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the stages by what is made together."""
        self._sharing: dict[str, list[Stage]] = {}
        for stage in self.plan.stages.values():
            self._sharing.setdefault(stage.batch_key, []).append(stage)

    def make(self, fingerprints: Iterable[str]) -> bool:
        """Make stages and what they are made from; return whether there was anything to make.

        The inputs of a finished stage are not made again; if one that is read is damaged, it is.

        Raises:
            Interrupted: the user asked to stop; unfinished work resumes where it stopped.
            StoreError: the store is not writable.
            OutOfStep: a process failed while others train with it.
        """
        asked = set(fingerprints)
        needed = self.plan.needed_by(asked)
        lacking = self._lacking(asked, needed)
        for fingerprint, stage in self.plan.stages.items():
            if fingerprint in lacking and self._is_open(fingerprint):
                self.context.check()
                self._settle(stage)
        return any(self.outcomes.get(fingerprint, "found") != "found" for fingerprint in needed)

    def _is_open(self, fingerprint: str) -> bool:
        return self.outcomes.get(fingerprint) in (None, "skipped")

    def _lacking(self, asked: set[str], needed: set[str]) -> set[str]:
        """Return the stages asked for, the inputs of missing ones, and all damaged ones."""
        lacking = set(asked)
        for fingerprint, stage in reversed(self.plan.stages.items()):
            if fingerprint not in needed or not self._is_open(fingerprint):
                continue
            try:
                is_there = self.context.store.find(stage) is not None
            except Damaged:
                is_there = False
                lacking.add(fingerprint)
            if fingerprint in lacking and not is_there and self._given_up(stage) is None:
                lacking.update(stage.inputs.values())
        return lacking

    def _given_up(self, stage: Stage) -> Failure | None:
        """Return the failure of a stage that is not tried again, or None."""
        past = self.context.store.failure(stage)
        if past is None or not past.final:
            return None
        tries_again = not self.plan.keep_pruned if past.outcome == "pruned" else self.retry
        return None if tries_again else past

    def _settle(self, stage: Stage) -> None:
        """Find a stage, or make it, or say why not."""
        lost = [i for i in stage.inputs.values() if self.outcomes.get(i) in _NOT_THERE]
        if self._find(stage) is not None:
            self.outcomes[stage.fingerprint] = "found"
        elif (past := self._given_up(stage)) is not None:
            self._tell([stage], past.outcome, past.reason)
        elif any(self.outcomes[i] != "skipped" for i in lost):
            reason = next(self.reasons[i] for i in lost if i in self.reasons)
            if {self.outcomes[i] for i in lost} == {"pruned"}:
                self._tell([stage], "pruned", reason)
            else:
                self._tell([stage], "blocked", f"a stage that it needs was not made: {reason}")
        elif lost or (self.fail_fast and "failed" in self.outcomes.values()):
            self.outcomes[stage.fingerprint] = "skipped"
        else:
            self._make_batch(self._batch(stage))

    def _batch(self, stage: Stage) -> list[Stage]:
        """Return the missing stages made together with one, such as those that share windows."""
        return [
            other
            for other in self._sharing.get(stage.batch_key, [stage])
            if other.fingerprint in self.wanted | {stage.fingerprint}
            and self._is_open(other.fingerprint)
            and self._find(other) is None
        ]

    def _make_batch(self, batch: list[Stage]) -> None:
        """Make stages; wait for what another process has taken over while this one was paused."""
        while batch:
            try:
                return self._make_locked(batch)
            except LeaseLost as lost:
                log.warning("%s", lost)
                batch = [s for s in batch if self.outcomes.get(s.fingerprint) != "made"]

    def _make_locked(self, batch: list[Stage]) -> None:
        """Make stages under their locks; accept what another sweep has made or given up."""
        with self._locked(batch):
            missing = []
            for stage in batch:
                self.outcomes[stage.fingerprint] = "found"
                if self._find(stage) is not None:
                    continue
                if (past := self._given_up(stage)) is not None:
                    self._tell([stage], past.outcome, past.reason)
                    continue
                missing.append(stage)
                self._reopen(stage)
            if missing:
                self.notify(
                    "started", missing[0], f"{len(missing)} in one go" if missing[1:] else ""
                )
                self._try(missing)

    def _locked(self, stages: list[Stage]) -> AbstractContextManager[None]:
        return self.context.store.lock(
            [stage.fingerprint for stage in stages],
            on_wait=lambda _: self.notify("waiting", stages[0], "another sweep is making it"),
            poll=self.context.check,
        )

    def _try(self, stages: list[Stage]) -> None:
        """Make stages and record how it went."""
        try:
            self._make_and_finish(stages)
        except Exception as error:
            of_one = isinstance(error, (Damaged, Unreadable))
            if (isinstance(error, StoreError) and not of_one) or isinstance(
                error, (Interrupted, OutOfStep)
            ):
                for stage in stages:
                    del self.outcomes[stage.fingerprint]
                raise
            self._fail(stages, error)

    def _fail(self, stages: list[Stage], error: Exception) -> None:
        """Record an error; what is neither a mistake nor expected is a bug: log its traceback."""
        match error:
            case Pruned():
                self._record(stages, "pruned", str(error), final=True)
            case Diverged():
                self._record(stages, "failed", str(error), final=True)
            case SparBenchError():
                self._record(stages, "failed", str(error), final=False)
            case _:  # in one trial, ours or a plug-in's: it must not stop the others
                trace = "".join(traceback.format_exception(error))
                log.error("stage %s failed\n%s", stages[0].fingerprint[:12], trace)
                self._record(stages, "failed", f"{type(error).__name__}: {error}", final=False)

    def _make_and_finish(self, stages: list[Stage]) -> None:
        context, mended = self.context, set[str]()
        while True:
            started, begun, context.flops = time.time_ns(), time.monotonic(), 0.0
            try:
                results = maker_of(type(stages[0]))(stages, context)
                break
            except Damaged as damage:
                if damage.fingerprint in mended:
                    raise
                mended.add(damage.fingerprint)
                self._mend(self.plan.stages[damage.fingerprint])
        seconds = time.monotonic() - begun
        try:
            self._require_unchanged(stages[0])
        except SparBenchError:
            for stage in stages:
                context.store.discard_unfinished(stage.fingerprint)
            raise
        for stage, result in zip(stages, results, strict=True):
            if isinstance(result, Exception):
                self._fail([stage], result)
                continue
            made = context.made(
                started_ms=started // 1_000_000,
                ended_ms=time.time_ns() // 1_000_000,
                seconds=seconds / len(stages),
                gflops=context.flops / 1e9 / len(stages),
            )
            context.store.finish(stage, summary=result, made=made)
            self.outcomes[stage.fingerprint] = "made"
            self.notify("made", stage, f"{seconds:.1f} s")

    def _require_unchanged(self, stage: Stage) -> None:
        """Raise if files have changed since the plan, so that the work is not stored."""
        images = self.plan.stages.get(stage.inputs.get("images", ""))
        resolver = Resolver()
        for one in (stage, images) if images else (stage,):
            one.require_unchanged(resolver)

    def _mend(self, stage: Stage) -> None:
        """Make a stage again that was found damaged while being read.

        Its lock is taken while those of stages made from it are held, never the reverse, so that
        two sweeps cannot deadlock.

        Raises:
            SparBenchError: it could not be made.
        """
        with self._locked([stage]):
            self._reopen(stage)
        self.outcomes.pop(stage.fingerprint, None)
        self.make([stage.fingerprint])
        if self.outcomes[stage.fingerprint] not in ("found", "made"):
            reason = self.reasons.get(stage.fingerprint, "")
            raise SparBenchError(f"{stage.kind} was damaged and could not be made again: {reason}")

    def _reopen(self, stage: Stage) -> None:
        if damage := self.context.store.reopen(stage):
            self.notify("damaged", stage, damage)

    def _record(
        self, stages: list[Stage], outcome: Literal["failed", "pruned"], reason: str, *, final: bool
    ) -> None:
        """Record why stages failed; after a permanent failure, a retry starts over."""
        left = [stage for stage in stages if self.outcomes[stage.fingerprint] != "made"]
        for stage in left:
            self.context.store.fail(stage, reason, outcome=outcome, final=final)
            if final and outcome == "failed":
                self.context.store.discard_unfinished(stage.fingerprint)
        self._tell(left, outcome, reason)

    def _tell(
        self, stages: list[Stage], outcome: Literal["failed", "pruned", "blocked"], reason: str
    ) -> None:
        for stage in stages:
            self.outcomes[stage.fingerprint] = outcome
            self.reasons[stage.fingerprint] = reason
            self.notify(outcome, stage, reason)

    def _find(self, stage: Stage) -> Finished | None:
        """Return a finished stage; a damaged one counts as missing."""
        try:
            return self.context.store.find(stage)
        except Damaged:
            return None
