"""Trials and their stages: what a sweep does, each shared piece once."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from spar_bench.inference import ImageSizes
from spar_bench.protocol import DeclaredProtocol
from spar_bench.resolve import ResolvedDataset, ResolvedPoint
from spar_bench.spec.schema import Settings
from spar_bench.stages import (
    latency,
)
from spar_bench.stages.base import Stage
from spar_bench.stages.latency import Machine
from spar_bench.stages.latency import Settings as Timing
from spar_bench.stages.latency import Stage as Session
from spar_bench.values import Method


@dataclass(frozen=True)
class PlannedRow:
    """A future line of results.csv: one method of a trial on one data set at one resolution.

    `evaluate`, `cost` and `probes`, by kind, are fingerprints; `timed` is the key of its timings in
    the latency stage.
    """

    method: Method
    data: ResolvedDataset
    short_side_px: int
    image_hw: tuple[int, int]
    protocol: DeclaredProtocol
    evaluate: str
    cost: str
    probes: dict[str, str]
    timed: str

    @property
    def stages(self) -> set[str]:
        """The fingerprints of the stages that have its numbers, except timing."""
        return {self.evaluate, self.cost, *self.probes.values()}


@dataclass(frozen=True)
class PlannedCost:
    """A future line of costs.csv: one method at one further image size.

    The data set is not read: its classes and thresholds are part of the work.
    """

    method: Method
    point: ResolvedPoint
    data: ResolvedDataset
    image_hw: tuple[int, int]
    cost: str
    timed: str


@dataclass(frozen=True)
class PlannedSizes:
    """A future line of sizes.csv: one method of a point over the sizes of a data set's images.

    `sizes` are those at which images are read. `cost` and `timed` are those of an image of the
    declared size, `image_hw`, as in a row; `spanning` has the key of the timings of each size at
    which latency is measured.
    """

    method: Method
    point: ResolvedPoint
    data: ResolvedDataset
    short_side_px: int
    image_hw: tuple[int, int]
    sizes: ImageSizes
    cost: str
    timed: str
    spanning: dict[tuple[int, int], str]


@dataclass(frozen=True)
class Trial:
    """One point of a sweep with one seed, which is None if none of its methods is a student."""

    name: str
    seed: int | None
    point: ResolvedPoint
    rows: list[PlannedRow]

    @property
    def group(self) -> str:
        """The name of its point."""
        return self.point.group

    @property
    def settings(self) -> Settings:
        """The settings of its point."""
        return self.point.settings


@dataclass
class Plan:
    """Everything that a sweep needs.

    `stages` is in an order in which each stage comes after its inputs; `latency` is the fingerprint
    of the one session in which everything is timed, or None. With `keep_pruned`, that of a search
    that prunes, students that a search has pruned are not trained; any other plan trains them.
    """

    keep_pruned: bool = False
    trials: list[Trial] = field(default_factory=list)
    stages: dict[str, Stage] = field(default_factory=dict)
    costs: list[PlannedCost] = field(default_factory=list)
    sizes: list[PlannedSizes] = field(default_factory=list)
    latency: str | None = None

    def add(self, stage: Stage) -> str:
        """Add a stage unless it is there already, and return its fingerprint."""
        self.stages.setdefault(stage.fingerprint, stage)
        return stage.fingerprint

    def time_on(self, machine: Machine) -> None:
        """Have latency measured on a machine, which is part of its fingerprint."""
        if self.latency is not None:
            self._retime(self.session.settings.model_copy(update={"machine": machine}))

    def time_in(self, session: Session) -> None:
        """Have everything timed in another session, which times at least the same."""
        if self.latency is not None:
            del self.stages[self.latency]
        self.latency = self.add(session)

    def limit_timing(self, keys: set[str]) -> None:
        """Time only what has one of these keys; if nothing has, nothing is timed."""
        if self.latency is not None:
            settings = self.session.settings
            timed = {key: one for key, one in settings.timed.items() if key in keys}
            self._retime(settings.model_copy(update={"timed": timed}))

    @property
    def session(self) -> Session:
        """The session in which everything is timed, of a plan that has one."""
        session = self.stages[self.latency or ""]
        assert isinstance(session, Session), "the plan's session of timings"
        return session

    def _retime(self, settings: Timing) -> None:
        session = self.session
        del self.stages[session.fingerprint]
        places = latency.Places(timed={key: session.places.timed[key] for key in settings.timed})
        limited = Session(settings=settings, places=places)
        self.latency = self.add(limited) if settings.timed else None

    def needed_by(self, fingerprints: Iterable[str]) -> set[str]:
        """Return the fingerprints of stages and of all that they are made from.

        Targets that are not kept are not part of a plan.
        """
        needed: set[str] = set()
        open_ends = list(fingerprints)
        while open_ends:
            fingerprint = open_ends.pop()
            if fingerprint not in needed and fingerprint in self.stages:
                needed.add(fingerprint)
                open_ends.extend(self.stages[fingerprint].inputs.values())
        return needed

    def of_trial(self, trial: Trial) -> set[str]:
        """Return the fingerprints of all stages that a trial's rows need, except timing."""
        return self.needed_by(fingerprint for row in trial.rows for fingerprint in row.stages)

    def trials_by_stage(self) -> dict[str, list[Trial]]:
        """Return the trials that each stage is made for, by fingerprint; timing is for all."""
        found: dict[str, list[Trial]] = {fingerprint: [] for fingerprint in self.stages}
        further: dict[tuple[str, Method], set[str]] = {}
        for line in self.costs:
            further.setdefault((line.point.group, line.method), set()).add(line.cost)
        for trial in self.trials:
            keys = {(trial.group, row.method) for row in trial.rows}
            stages = self.of_trial(trial).union(*(further.get(key, set()) for key in keys))
            for fingerprint in stages | ({self.latency} if self.latency else set()):
                found[fingerprint].append(trial)
        return found
