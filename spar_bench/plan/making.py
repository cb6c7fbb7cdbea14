"""Make the plan of a sweep: its trials, and the stages that they need."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from spar_bench import registry
from spar_bench.errors import SparBenchError
from spar_bench.inference import Resize
from spar_bench.plan.sizes import spanning
from spar_bench.plan.trials import Plan, PlannedCost, PlannedRow, PlannedSizes, Trial
from spar_bench.protocol import DeclaredProtocol, Protocol, declare, resizes, thresholds_of
from spar_bench.resolve import ResolvedDataset, ResolvedPoint, Resolver
from spar_bench.spec import Point
from spar_bench.spec.plugins import PluginSpec
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
from spar_bench.validation import dotted, mistakes
from spar_bench.values import METHODS, Method


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
            if settings.measure.over_sizes:
                self.plan.sizes += self._over_sizes(point, methods, data)

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
        if point.settings.keeps_targets:
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
        priced, timed = self._timed(point, method, data, image_hw)
        return self.plan.add(priced), timed

    def _over_sizes(
        self, point: ResolvedPoint, methods: list[Method], data: ResolvedDataset
    ) -> Iterator[PlannedSizes]:
        """Yield the costs of reading all images of a data set; has those that span them timed."""
        known = self.resolver.image_sizes(data.spec)
        for resize in resizes(point.settings.evaluate, data.facts):
            image_hw, sizes = resize.of(data.image_hw), resize.of_all(known)
            for method in methods:
                priced, timed = self._priced(point, method, data, image_hw)
                yield PlannedSizes(
                    method=method,
                    point=point,
                    data=data,
                    short_side_px=resize.short_side_px,
                    image_hw=image_hw,
                    sizes=sizes,
                    cost=priced,
                    timed=timed,
                    spanning={
                        hw: self._timed(point, method, data, hw)[1] for hw in spanning(sizes)
                    },
                )

    def _timed(
        self,
        point: ResolvedPoint,
        method: Method,
        data: ResolvedDataset,
        image_hw: tuple[int, int],
    ) -> tuple[cost.Stage, str]:
        """Have the reading of an image timed if its point asks for it.

        Returns its cost, and the key of its timings.
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
        return priced, timed.key


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
