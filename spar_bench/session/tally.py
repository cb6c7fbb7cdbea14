"""How far a sweep has come: its stages by state, who makes what now, and how long it may take."""

import time
from dataclasses import dataclass, field

from spar_bench.engine.events import NO_SLOT, RELEASES, Event
from spar_bench.plan.devices import STAGE_S, Speed, assumed_speed
from spar_bench.plan.trials import Plan, Trial
from spar_bench.session.collect import Collector
from spar_bench.stages.base import Stage
from spar_bench.store import Store

PLAN_S = 60.0
"""Seconds of work in which what was planned counts as much as how fast it goes."""


@dataclass
class Doing:
    """What a worker does now: the stage, for which trials, and its share that is done, 0 to 1.

    `planned_s` is how long the stage and those made with it take as planned, 0 if not known. With
    `helps`, another process makes it, and this one does parts.
    """

    stage: Stage
    trials: str
    node: str = ""
    device: str = ""
    planned_s: float = 0.0
    helps: bool = False
    share: float = 0.0
    since: float = field(default_factory=time.monotonic)

    @property
    def seconds_left(self) -> float | None:
        """The time left, as planned and more and more at the speed so far; None if not known."""
        if self.helps or not self.planned_s:
            return None
        worked = self.share * self.planned_s
        pace = (PLAN_S + time.monotonic() - self.since) / (PLAN_S + worked)
        return pace * (self.planned_s - worked)


class Tally:
    """The state of a sweep's stages, and how long the rest may take.

    `lost` has the stages that are not made, by how they ended; `doing` what each worker does, by
    the number of its slot.
    """

    def __init__(self) -> None:
        self.plan = Plan()
        self.done: set[str] = set()
        self.lost = {outcome: frozenset[str]() for outcome in ("failed", "blocked", "pruned")}
        self.doing: dict[int, Doing] = {}
        self._trials: dict[str, list[Trial]] = {}
        self._work: dict[str, float] = {}
        self._key: dict[str, str] = {}
        self._computing: set[str] = set()
        self._begun: tuple[float, float] | None = None
        self._speed: Speed | None = (
            None  # known with the first plan, and kept for those of a search
        )

    def planned(self, plan: Plan, store: Store) -> None:
        """Take a plan and its finished stages; a search replaces it by its next plan."""
        collector, ahead = Collector("", plan, store), dict[str, list[Stage]]()
        done, keys = set[str](), dict[str, str]()
        for fingerprint, stage in plan.stages.items():
            state = collector.state(fingerprint)
            if state.status == "finished":
                done.add(fingerprint)
            elif not state.final:
                keys[fingerprint] = stage.batch_key
                ahead.setdefault(stage.batch_key, []).append(stage)
        speed = self._speed = self._speed or assumed_speed(store.finished(), None)
        work = {key: speed.seconds(batch, plan.stages) for key, batch in ahead.items()}
        self._computing = {key for key, seconds in work.items() if seconds > 2 * STAGE_S}
        # In one assignment: another thread draws the live table.
        self.plan, self.done, self._work, self._key = plan, done, work, keys
        self._trials = plan.trials_by_stage()
        self._begun = None

    def note(self, event: Event, stage: Stage) -> None:
        """Record what happened to a stage."""
        kind = event.kind
        if kind == "progress":
            self._go_on(event, stage)
        elif kind in ("started", "waiting", "helping") and event.slot != NO_SLOT:
            self._turn_to(event, stage)
        elif kind in ("made", "found"):
            self.done = self.done | {stage.fingerprint}
        elif kind in self.lost:
            self.lost[kind] |= {stage.fingerprint}
        if kind in RELEASES and event.slot in self.doing:
            self.doing = {slot: one for slot, one in self.doing.items() if slot != event.slot}

    def seconds_left(self) -> float | None:
        """Return the time left as planned, and more and more at the speed so far.

        The speed is that since a stage first reported arithmetic: what comes before is start-up.
        None if nothing is ahead.
        """
        if not self._work:
            return None
        worked, pace = self._worked(), 1 / max(len(self.doing), 1)
        if self._begun is not None:
            when, worked_then = self._begun
            passed = time.monotonic() - when
            pace = (pace * PLAN_S + passed) / (PLAN_S + worked - worked_then)
        return pace * (sum(self._work.values()) - worked)

    def n_done(self) -> str:
        """Return how many stages are finished, out of how many."""
        return f"{len(self.done)}/{len(self.plan.stages)}"

    def trials_of(self, stage: Stage) -> str:
        """Return the trials that a stage is made for, shortened."""
        names = [trial.name for trial in self._trials.get(stage.fingerprint, [])]
        if stage.kind == "latency" or not names:
            return "all"
        return names[0] + (f" and {len(names) - 1} more" if names[1:] else "")

    def _go_on(self, event: Event, stage: Stage) -> None:
        doing = self.doing.get(event.slot)
        if doing is None or doing.stage.fingerprint != stage.fingerprint:
            self._turn_to(event, stage)
        self.doing[event.slot].share = event.share
        computes = self._key.get(stage.fingerprint) in self._computing
        # Imports and the loading of weights end before the first report of a stage that computes.
        if self._begun is None and computes:
            self._begun = time.monotonic(), self._worked()

    def _worked(self) -> float:
        """Return how much of the work ahead is done, in planned seconds."""
        work, keys = self._work, self._key
        ended = self.done.union(*self.lost.values())
        ended = {keys[fingerprint] for fingerprint in ended if fingerprint in keys}
        worked = sum(ahead for key, ahead in work.items() if key in ended)
        for one in self.doing.values():
            key = keys.get(one.stage.fingerprint, "")
            if not one.helps and key not in ended:
                worked += one.share * work.get(key, 0.0)
        return worked

    def _turn_to(self, event: Event, stage: Stage) -> None:
        before = self.doing.get(event.slot)
        doing = Doing(
            stage,
            self.trials_of(stage),
            event.node or (before.node if before else ""),
            event.device or (before.device if before else ""),
            self._work.get(self._key.get(stage.fingerprint, ""), 0.0),
            helps=event.kind == "helping",
        )
        self.doing = dict(sorted({**self.doing, event.slot: doing}.items()))
