"""Trials and their stages: what a sweep does, each shared piece once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from spar_bench import registry
from spar_bench.errors import SparBenchError
from spar_bench.inference import Resize
from spar_bench.protocol import DeclaredProtocol, Protocol, declare, resizes, thresholds_of
from spar_bench.resolve import ResolvedDataset, ResolvedPoint, Resolver
from spar_bench.spec import Point
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import Settings
from spar_bench.stages import (
    cost,
    evaluate,
    images,
    imported,
    latency,
    linear_probe,
    student,
    targets,
    text,
)
from spar_bench.stages.base import Stage, kind_of
from spar_bench.stages.latency import Machine
from spar_bench.stages.latency import Settings as Timing
from spar_bench.stages.latency import Stage as Session
from spar_bench.validation import dotted, mistakes
from spar_bench.values import METHODS, Method


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


def make_plan(
    points: Iterable[Point],
    seeds: list[int],
    machine: Machine | None,
    *,
    resolver: Resolver | None = None,
    keep_pruned: bool = False,
) -> Plan:
    """Lay out trials and stages; `machine` is where latency will be measured.

    A seed draws the distillation images and the student's order, so a method without a student has
    one row per group: it is in the group's first trial, with no seed.

    Raises:
        NotReady: weights or data that decide a fingerprint are missing.
    """
    planner = _Planner(Plan(keep_pruned), resolver or Resolver())
    for point in points:
        planner.add(planner.resolver.point(point), seeds)
    return planner.finish(machine)


@dataclass
class _Planner:
    """Adds points to a plan; `timed` has what is to be timed in one session, by its key."""

    plan: Plan
    resolver: Resolver
    timed: dict[str, tuple[latency.Timed, cost.Places]] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, point: ResolvedPoint, seeds: list[int]) -> None:
        """Add the trials of a point, and its costs at further sizes."""
        settings = point.settings
        methods = [method for method in METHODS if method in settings.evaluate.methods]
        is_seeded = settings.distils
        for index, seed in enumerate(seeds if is_seeded else seeds[:1]):
            asked: list[Method] = methods if index == 0 else ["student"]
            trial = Trial(
                name=f"{point.group},seed={seed}" if is_seeded else point.group,
                seed=seed if is_seeded else None,
                point=point,
                rows=self._rows(point, seed, asked),
            )
            self.plan.trials.append(trial)
        for data in point.datasets:
            for method in methods:
                for image_hw in settings.measure.image_hw:
                    priced, timed = self._priced(point, method, data, image_hw)
                    line = PlannedCost(method, point, data, image_hw, priced, timed)
                    self.plan.costs.append(line)

    def finish(self, machine: Machine | None) -> Plan:
        """Return the plan, with the session in which everything is timed."""
        if self.timed:
            session = latency.Stage.of(self.timed.values(), machine, seconds=self.seconds)
            self.plan.latency = self.plan.add(session)
        return self.plan

    def _rows(self, point: ResolvedPoint, seed: int, methods: list[Method]) -> list[PlannedRow]:
        weights = {"student": self._student(point, seed)} if "student" in methods else {}
        return [
            self._row(point, method, data, resize, weights if method == "student" else {})
            for data in point.datasets
            for resize in resizes(point.settings.evaluate, data.facts)
            for method in methods
        ]

    def _student(self, point: ResolvedPoint, seed: int) -> str:
        """Add a student and all that it is made from; return its fingerprint.

        Targets that are not kept are not added: the student computes them as it trains.
        """
        checkpoint = point.settings.student.checkpoint
        if checkpoint is not None:
            return self.plan.add(imported.Stage.of(point.backbone, checkpoint, self.resolver))
        assert point.source is not None, "a student that is trained has images"
        listed = images.Stage.of(point, point.source, seed)
        taught = targets.Stage.of(point, listed)
        self.plan.add(listed)
        if point.settings.teacher.keep:
            self.plan.add(taught)
        return self.plan.add(student.Stage.of(point, listed, taught, seed))

    def _row(
        self,
        point: ResolvedPoint,
        method: Method,
        data: ResolvedDataset,
        resize: Resize,
        weights: Mapping[str, str],
    ) -> PlannedRow:
        image_hw = resize.of(data.image_hw)
        declared = declare(
            point.settings.evaluate, data.spec, data.facts, classes=data.classes, resize=resize
        )
        protocol = self._protocol(point, declared)
        classifier = self._classifier(
            point, method, data, resize=resize, protocol=protocol, inputs=weights
        )
        inputs = {classifier.kind: self.plan.add(classifier), **weights}
        evaluation = evaluate.Stage.of(
            point, method, data, resize.short_side_px, protocol=protocol, inputs=inputs
        )
        evaluated = self.plan.add(evaluation)  # before its cost, as a reader expects it
        priced, timed = self._priced(point, method, data, image_hw)
        return PlannedRow(
            method=method,
            data=data,
            short_side_px=resize.short_side_px,
            image_hw=image_hw,
            protocol=declared,
            evaluate=evaluated,
            cost=priced,
            probes={
                probe.name: self.plan.add(_probe(probe, evaluation))
                for probe in point.settings.evaluate.probes
            },
            timed=timed,
        )

    def _classifier(
        self,
        point: ResolvedPoint,
        method: Method,
        data: ResolvedDataset,
        *,
        resize: Resize,
        protocol: Protocol,
        inputs: Mapping[str, str],
    ) -> Stage:
        """Return what an evaluation scores features with; `inputs` has the weights of a student."""
        if not point.settings.evaluate.classifier.is_linear:
            return text.Stage.of(point, data, protocol)
        return linear_probe.Stage.of(
            point,
            method,
            data,
            self.resolver.training(data.spec),
            short_side_px=resize.short_side_px,
            protocol=protocol,
            inputs=inputs,
        )

    @staticmethod
    def _protocol(point: ResolvedPoint, declared: DeclaredProtocol) -> Protocol:
        backbone = point.backbone
        return declared.resolved(backbone.sizes.read_out, interpolation=backbone.interpolation)

    def _priced(
        self,
        point: ResolvedPoint,
        method: Method,
        data: ResolvedDataset,
        image_hw: tuple[int, int],
    ) -> tuple[str, str]:
        """Add the cost of reading an image, and have it timed if its point asks for it.

        Returns the cost's fingerprint, and the key of its timings.
        """
        priced = cost.Stage.of(point, method, image_hw, n_queries=point.n_queries(data))
        evaluated = point.settings.evaluate
        read_out = point.backbone.sizes.read_out
        thresholds = thresholds_of(evaluated, data.spec, data.facts, read_out)
        timed = latency.Timed.of(priced, n_classes=len(data.classes), thresholds=thresholds)
        measure = point.settings.measure
        if measure.latency:
            self.timed[timed.key] = timed, priced.places
            self.seconds = max(self.seconds, measure.seconds)
        return self.plan.add(priced), timed.key


def _probe(spec: PluginSpec, evaluation: evaluate.Stage) -> Stage:
    """Return what a spec asks for beside an evaluation.

    Raises:
        SparBenchError: the plug-in refuses its settings, or is of a kind of another name.
    """
    kind: Any = kind_of(spec.name)  # with `probing`, which kinds that are no probes do not have
    settings = registry.as_stated("stages", spec.name, spec.settings)
    try:
        probe: Stage = kind.probing(evaluation, **settings)
    except Exception as error:  # a plug-in may raise anything
        if isinstance(error, ValidationError):
            found = [f"{dotted(one.steps)} {one.text}" for one in mistakes(error)]
        else:
            reason = " ".join(str(error).split())
            found = [f"got {type(error).__name__}: {reason}; correct them"]
        raise SparBenchError(
            f"evaluate.probes: {spec.name} must accept its settings, but {'; '.join(found)}"
        ) from error
    if probe.kind != spec.name:
        raise SparBenchError(
            f"evaluate.probes: {spec.name} must be a kind of that name, but states {probe.kind!r}; "
            "rename its entry point, or its kind"
        )
    return probe
