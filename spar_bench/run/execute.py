"""Make the stages of a plan that are missing, each once, whatever fails or is killed on the way."""

import logging
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from spar_bench.errors import Diverged, SparBenchError, StoreError
from spar_bench.plan.stages import batch_key
from spar_bench.plan.trials import Plan
from spar_bench.run.context import Context, Interrupted, Pruned
from spar_bench.run.cost import make_cost
from spar_bench.run.evaluate import make_evaluations
from spar_bench.run.latency import make_latency
from spar_bench.run.student import make_student
from spar_bench.run.teach import make_images, make_targets
from spar_bench.store import Damaged, Finished, Stage, writing

log = logging.getLogger(__name__)

Maker = Callable[[list[Stage], Context], list[dict[str, Any]]]
Outcome = Literal["found", "made", "failed", "blocked", "pruned", "skipped"]
Note = Literal["started", "waiting", "made", "failed", "blocked", "pruned", "damaged"]


def _one_by_one(make: Callable[[Stage, Context], dict[str, Any]]) -> Maker:
    return lambda stages, context: [make(stage, context) for stage in stages]


MAKERS: dict[str, Maker] = {
    "images": _one_by_one(make_images),
    "targets": _one_by_one(make_targets),
    "student": _one_by_one(make_student),
    "evaluate": make_evaluations,
    "cost": _one_by_one(make_cost),
    "latency": _one_by_one(make_latency),
}


@dataclass
class Executor:
    """Makes stages in order; a failed one leaves the others alone.

    Args:
        plan: The stages, in an order in which each comes after its inputs.
        context: Where and with what they are made.
        wanted: Fingerprints of all that will be asked for: evaluations that share windows are made
            together, also when they are asked for one after the other.
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

    def make(self, fingerprints: Iterable[str]) -> bool:
        """Make stages and their inputs, in the plan's order; tell whether there was anything to make.

        Raises:
            Interrupted: the user asked to stop; what was under way goes on from where it was.
            StoreError: the store cannot be written.
        """
        needed = self.plan.needed_by(fingerprints)
        for fingerprint, stage in self.plan.stages.items():
            if fingerprint in needed and self.outcomes.get(fingerprint) in (None, "skipped"):
                self.context.check()
                self._settle(stage)
        return any(self.outcomes.get(fingerprint) != "found" for fingerprint in needed)

    def _settle(self, stage: Stage) -> None:
        """Find a stage, or make it, or say why not."""
        store, fingerprint = self.context.store, stage.fingerprint
        past = store.failure(stage)
        if self._find(stage) is not None:
            self.outcomes[fingerprint] = "found"
        elif any(self.outcomes[i] not in ("found", "made") for i in stage.inputs.values()):
            self.outcomes[fingerprint] = "blocked"
            self.reasons[fingerprint] = "a stage that it needs " + next(
                self.reasons.get(i, "was not made")
                for i in stage.inputs.values()
                if self.outcomes[i] not in ("found", "made")
            )
            self.notify("blocked", stage, self.reasons[fingerprint])
        elif self.fail_fast and "failed" in self.outcomes.values():
            self.outcomes[fingerprint] = "skipped"
        elif past and past["final"] and not self.retry:
            self.outcomes[fingerprint] = past["outcome"]
            self.reasons[fingerprint] = past["reason"]
            self.notify(past["outcome"], stage, past["reason"])
        else:
            self._make_batch(self._batch(stage))

    def _batch(self, stage: Stage) -> list[Stage]:
        """Return the missing stages that are made together with one: evaluations of shared windows."""
        if stage.kind != "evaluate":
            return [stage]
        key = batch_key(stage)
        return [
            other
            for other in self.plan.stages.values()
            if other.kind == "evaluate"
            and other.fingerprint in self.wanted
            and batch_key(other) == key
            and self._find(other) is None
        ]

    def _make_batch(self, batch: list[Stage]) -> None:
        """Make stages under their locks; what another sweep made meanwhile is found, not made."""
        context, first = self.context, batch[0]
        with (
            writing(context.store.root),
            context.store.lock(
                [stage.fingerprint for stage in batch],
                on_wait=lambda _: self.notify("waiting", first, "another sweep is making it"),
                poll=context.check,
            ),
        ):
            missing = [stage for stage in batch if self._find(stage) is None]
            for stage in batch:
                self.outcomes[stage.fingerprint] = "found"
            if missing:
                self.notify(
                    "started", missing[0], f"{len(missing)} in one go" if missing[1:] else ""
                )
                self._try(missing)

    def _try(self, stages: list[Stage]) -> None:
        """Make stages and record how it went."""
        try:
            self._make_and_finish(stages)
        except (Interrupted, StoreError, OSError):
            for stage in stages:
                del self.outcomes[stage.fingerprint]
            raise
        except Pruned as error:
            self._record(stages, "pruned", str(error), final=True)
        except Diverged as error:
            self._record(stages, "failed", str(error), final=True)
        except SparBenchError as error:
            self._record(stages, "failed", str(error), final=False)
        except Exception as error:
            # A bug in one trial, ours or a plug-in's, must not cost the others: it is kept whole.
            log.error("stage %s failed\n%s", stages[0].fingerprint[:12], traceback.format_exc())
            self._record(stages, "failed", f"{type(error).__name__}: {error}", final=False)

    def _make_and_finish(self, stages: list[Stage]) -> None:
        context = self.context
        started, begun, context.flops = time.time_ns(), time.monotonic(), 0.0
        try:
            summaries = MAKERS[stages[0].kind](stages, context)
        except Damaged as error:
            self.notify("damaged", self.plan.stages[error.fingerprint], str(error))
            context.store.discard(error.fingerprint)
            self._make_batch([self.plan.stages[error.fingerprint]])
            summaries = MAKERS[stages[0].kind](stages, context)
        seconds = time.monotonic() - begun
        for stage, summary in zip(stages, summaries, strict=True):
            made = context.made(
                started_ms=started // 1_000_000,
                ended_ms=time.time_ns() // 1_000_000,
                seconds=seconds / len(stages),
                gflops=context.flops / 1e9 / len(stages),
            )
            context.store.finish(stage, summary=summary, made=made)
            self.outcomes[stage.fingerprint] = "made"
            self.notify("made", stage, f"{seconds:.1f} s")

    def _record(
        self, stages: list[Stage], outcome: Literal["failed", "pruned"], reason: str, *, final: bool
    ) -> None:
        for stage in stages:
            if self.outcomes[stage.fingerprint] == "made":
                continue
            self.outcomes[stage.fingerprint] = outcome
            self.reasons[stage.fingerprint] = reason
            self.context.store.fail(stage, reason, outcome=outcome, final=final)
            self.notify(outcome, stage, reason)

    def _find(self, stage: Stage) -> Finished | None:
        """Return a finished stage; a damaged one is reported, discarded, and so missing."""
        try:
            return self.context.store.find(stage)
        except Damaged as error:
            self.notify("damaged", stage, str(error))
            self.context.store.discard(stage.fingerprint)
            return None
