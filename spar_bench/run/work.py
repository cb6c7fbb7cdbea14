"""Make a batch of stages under their leases, and leave results or failures in the store."""

import logging
import platform
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from spar_bench import plugin_code
from spar_bench.engine.events import ELSEWHERE, ENDINGS, MADE_ELSEWHERE, Emit, Event
from spar_bench.engine.workplan import WorkPlan
from spar_bench.errors import (
    Diverged,
    FilesChanged,
    Interrupted,
    LeaseLost,
    Pruned,
    SparBenchError,
    StoreError,
    Unreadable,
)
from spar_bench.machine_lock import machine_lock
from spar_bench.resolve import Resolver
from spar_bench.run.context import Context, device_number, ignore
from spar_bench.run.distributed import OutOfStep
from spar_bench.run.products import wide_products
from spar_bench.stage import Damaged
from spar_bench.stages.base import Stage, Summary

log = logging.getLogger(__name__)

_TIMED = "latency is being timed on this machine"

Maker = Callable[[list[Stage], Context], list[Summary | Exception]]


def maker_of(kind: type[Stage]) -> Maker:
    """Return the function that makes stages of a kind."""
    maker: Maker = _named(kind.maker)
    return maker


def _named(place: str) -> Any:
    """Return what a dotted name stands for."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


@dataclass
class Worker:
    """Makes stages of a plan, one batch at a time; a failed one is an event, not an exception.

    `printing` appends what is printed meanwhile to a file, where a process has it apart.
    """

    plan: WorkPlan
    context: Context
    printing: Callable[[Path], AbstractContextManager[object]] = nullcontext
    _logs_to: str = ""

    def make(self, batch: list[Stage], emit: Emit) -> None:
        """Make stages under their leases; accept what another process has made or given up.

        Every stage gets an event that ends it, or `left` if another process has its lease, unless
        an exception ends all work.

        Raises:
            Interrupted: the user asked to stop; unfinished work resumes where it stopped.
            StoreError: the store is not writable.
            OutOfStep: a process failed while others train with it.
        """
        left = {stage.fingerprint: stage for stage in batch}

        def watch(event: Event) -> None:
            if event.kind in ENDINGS:
                left.pop(event.fingerprint, None)
            emit(event)

        try:
            with self.context.store.lock_free(list(left)) as held:
                own = [stage for stage in batch if stage.fingerprint in held]
                if own:
                    with self._logging(own[0].fingerprint):
                        self._make_missing(own, watch)
        except LeaseLost as lost:
            log.warning("%s", lost)
        for fingerprint in left:
            emit(Event(kind="left", fingerprint=fingerprint, text=ELSEWHERE))

    @contextmanager
    def _logging(self, first: str) -> Iterator[None]:
        """Keep what is said meanwhile, and printed, with the first stage, if that fails."""
        failures, self._logs_to = self.context.store.failures, first
        with self.printing(failures.log(first)), failures.logging(first, self.context.where):
            yield

    def help(self, batch: list[Stage], emit: Emit) -> None:
        """Do parts of stages that another process makes, until none is free.

        What fails here fails there too, where it is recorded.

        Raises:
            Interrupted: the user asked to stop; parts that are not done are given back.
            StoreError: the store is not writable.
        """
        context = self.context
        context.report = ignore
        context.begin()
        self._begin("helping", batch[0], "", emit)
        try:
            self._require_unchanged(batch[0])
            with self._machine(batch[0], emit), wide_products(context.device):
                _named(batch[0].helper)(batch, context)
        except LeaseLost as lost:
            log.warning("%s", lost)
        except Exception as error:
            is_wanted = context.store.is_being_made(batch[0].fingerprint)
            of_one = isinstance(error, (Damaged, Unreadable)) or not is_wanted
            if isinstance(error, Interrupted) or (isinstance(error, StoreError) and not of_one):
                raise
            log.debug("helped in vain", exc_info=error)
        if context.store.has(batch[0]):  # its owner has ended, and cleaned up before this did
            context.store.discard_unfinished(batch[0].fingerprint)
        for stage in batch:
            emit(Event(kind="helped", fingerprint=stage.fingerprint))

    def _make_missing(self, batch: list[Stage], emit: Emit) -> None:
        """Make stages whose leases are held, but for those that are settled."""
        missing = [stage for stage in batch if not self._is_settled(stage, emit)]
        if missing:
            text = f"{len(missing)} in one go" if missing[1:] else ""
            self._begin("started", missing[0], text, emit)
            self._try(missing, emit)

    def _begin(
        self, kind: Literal["started", "helping"], stage: Stage, text: str, emit: Emit
    ) -> None:
        """Say what is begun, and where."""
        node, device = platform.node(), device_number(self.context.device)
        emit(Event(kind=kind, fingerprint=stage.fingerprint, text=text, node=node, device=device))

    def _leased(self, stage: Stage, emit: Emit) -> AbstractContextManager[None]:
        """Wait for the lease of a stage that this process cannot go on without, and hold it."""

        def tell(_: str) -> None:
            emit(Event(kind="waiting", fingerprint=stage.fingerprint, text=ELSEWHERE))

        names = [stage.fingerprint]
        return self.context.store.lock(names, on_wait=tell, poll=self.context.check)

    def _is_settled(self, stage: Stage, emit: Emit) -> bool:
        """Return whether another process has made a stage or given it up; reopen damaged ones."""
        key = stage.fingerprint
        try:
            if self.context.store.find(stage) is not None:
                emit(Event(kind="found", fingerprint=key, text=MADE_ELSEWHERE))
                return True
        except Damaged:
            pass
        past = self.plan.retries.given_up(self.context.store.failure(stage))
        if past is not None:
            emit(Event(kind=past.outcome, fingerprint=key, text=past.reason))
            return True
        damage = self.context.store.reopen(stage)
        if damage:
            emit(Event(kind="damaged", fingerprint=key, text=damage))
        return False

    def _try(self, stages: list[Stage], emit: Emit) -> None:
        """Make stages and record how it went."""
        try:
            self._make_and_finish(stages, emit)
        except Exception as error:
            of_one = isinstance(error, (Damaged, Unreadable))
            stops_all = isinstance(error, StoreError) and not of_one
            if stops_all or isinstance(error, (Interrupted, OutOfStep)):
                raise
            self._fail(stages, error, emit)

    def _make_and_finish(self, stages: list[Stage], emit: Emit) -> None:
        """Make stages; what is found damaged among their inputs is made again first."""
        mended = set[str]()
        while (damage := self._make_on_machine(stages, emit)) is not None:
            if damage.fingerprint in mended:
                raise damage
            mended.add(damage.fingerprint)
            self._mend(damage.fingerprint, emit)

    def _make_on_machine(self, stages: list[Stage], emit: Emit) -> Damaged | None:
        """Make stages while this machine is free for them, or return what is damaged."""
        context = self.context
        plugins = [plugin_code.record(one.settings.model_dump(mode="json")) for one in stages]
        context.report = lambda stage, share: emit(
            Event(kind="progress", fingerprint=stage.fingerprint, share=share)
        )
        # No lease is waited for meanwhile: its owner may wait for this machine.
        with self._machine(stages[0], emit):
            started, begun = time.time_ns(), time.monotonic()
            context.begin()
            try:
                with wide_products(context.device):
                    results = maker_of(type(stages[0]))(stages, context)
            except Damaged as damage:
                return damage
            made = context.made(
                started_ms=started // 1_000_000,
                ended_ms=time.time_ns() // 1_000_000,
                seconds=(time.monotonic() - begun + context.elsewhere_s) / len(stages),
                gflops=context.flops / 1e9 / len(stages),
                window_batch=context.window_batch,
            )
            self._finish(stages, results, [{**made, "plugins": one} for one in plugins], emit)
        return None

    def _machine(self, stage: Stage, emit: Emit) -> AbstractContextManager[None]:
        def tell() -> None:
            text = "other work on this machine ends first" if stage.alone else _TIMED
            emit(Event(kind="waiting", fingerprint=stage.fingerprint, text=text))

        return machine_lock(alone=stage.alone, on_wait=tell, poll=self.context.check)

    def _finish(
        self,
        stages: list[Stage],
        results: list[Summary | Exception],
        made: list[dict[str, Any]],
        emit: Emit,
    ) -> None:
        """Store what was made, and record what failed."""
        try:
            self._require_unchanged(stages[0])
        except FilesChanged:  # if they only cannot be read now, the work stays
            for stage in stages:
                self.context.store.discard_unfinished(stage.fingerprint)
            raise
        text = f"{sum(one['seconds'] for one in made):.1f} s"
        for stage, result, how in zip(stages, results, made, strict=True):
            if isinstance(result, Exception):
                self._fail([stage], result, emit)
                continue
            self.context.store.finish(stage, summary=result, made=how)
            emit(Event(kind="made", fingerprint=stage.fingerprint, text=text))

    def _require_unchanged(self, stage: Stage) -> None:
        """Look again at what the fingerprint stands for, so that no work on other files is stored.

        Raises:
            FilesChanged: files have changed since the plan.
            SparBenchError: they cannot be read.
        """
        listed = self.plan.stages.get(stage.inputs.get("images", ""))
        resolver = Resolver()
        for one in (stage, listed) if listed else (stage,):
            one.require_unchanged(resolver)

    def _mend(self, fingerprint: str, emit: Emit) -> None:
        """Make a stage again that was found damaged while being read.

        Its lease is taken while those of stages made from it are held, never the reverse, so that
        two sweeps cannot deadlock.

        Raises:
            SparBenchError: it could not be made.
        """
        stage = self.plan.stages[fingerprint]
        with self._leased(stage, emit):
            damage = self.context.store.reopen(stage)
        if damage:
            emit(Event(kind="damaged", fingerprint=fingerprint, text=damage))
        self._ensure([stage], emit)

    def _ensure(self, stages: Iterable[Stage], emit: Emit) -> None:
        """Make stages that are missing, and first what they are made from."""
        for stage in stages:
            if self.context.store.has(stage):
                continue
            inputs = [self.plan.stages.get(key) for key in stage.inputs.values()]
            self._ensure(filter(None, inputs), emit)  # targets that are not kept are not planned
            self._make_waiting(stage, emit)
            if not self.context.store.has(stage):
                failure = self.context.store.failure(stage)
                raise SparBenchError(
                    f"{stage.kind} was damaged and could not be made again: "
                    f"{failure.reason if failure else 'it was deleted meanwhile'}"
                )

    def _make_waiting(self, stage: Stage, emit: Emit) -> None:
        """Make a stage, or wait for who makes it."""
        while True:
            try:
                with self._leased(stage, emit):
                    return self._make_missing([stage], emit)
            except LeaseLost as lost:
                log.warning("%s", lost)

    def _fail(self, stages: list[Stage], error: Exception, emit: Emit) -> None:
        """Record an error; what is neither a mistake nor expected is a bug: log its traceback."""
        match error:
            case Pruned():
                self._record(stages, "pruned", str(error), emit, final=True)
            case Diverged():
                self._record(stages, "failed", str(error), emit, final=True)
            case SparBenchError():
                self._record(stages, "failed", str(error), emit)
            case _:  # in one trial, ours or a plug-in's: it must not stop the others
                trace = "".join(traceback.format_exception(error)).rstrip()
                log.error("stage %s failed\n%s", stages[0].fingerprint[:12], trace)
                for stage in stages:
                    if stage.fingerprint != self._logs_to:
                        failures = self.context.store.failures
                        failures.say(stage.fingerprint, self.context.where, trace)
                self._record(stages, "failed", f"{type(error).__name__}: {error}", emit)

    def _record(
        self,
        stages: list[Stage],
        outcome: Literal["failed", "pruned"],
        reason: str,
        emit: Emit,
        *,
        final: bool = False,
    ) -> None:
        """Record why stages failed; after a permanent failure, a retry starts over."""
        for stage in stages:
            if self.context.store.has(stage):  # finished before a later one of the batch failed
                continue
            self.context.store.fail(
                stage, reason, outcome=outcome, final=final, where=self.context.where
            )
            if final and outcome == "failed":
                self.context.store.discard_unfinished(stage.fingerprint)
            emit(Event(kind=outcome, fingerprint=stage.fingerprint, text=reason))
