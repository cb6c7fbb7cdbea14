"""Trials and their stages: what a sweep does, each shared piece once."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from spar_bench.backbones import interpolation, known_sizes
from spar_bench.plan import stages as build
from spar_bench.plan.inputs import Labelled, labelled, looking_once
from spar_bench.plan.protocol import Resize, declare, resizes, resolve
from spar_bench.spec import Point
from spar_bench.spec.schema import METHODS, Method, Settings
from spar_bench.stage import Stage, digest


@dataclass(frozen=True)
class Arm:
    """A future line of results.csv: one method of a trial on one data set at one resolution.

    `protocol` is as it is declared; `evaluate` and `cost` are fingerprints; `timed` is the key of
    its timings in the latency stage.
    """

    method: Method
    data: Labelled
    short_side_px: int
    image_hw: tuple[int, int]
    protocol: dict[str, Any]
    evaluate: str
    cost: str
    timed: str


@dataclass(frozen=True)
class CostLine:
    """A future line of costs.csv: one method at one further image size."""

    method: Method
    settings: Settings
    image_hw: tuple[int, int]
    cost: str
    timed: str


@dataclass(frozen=True)
class Trial:
    """One point of a sweep with one seed, which is None if none of its methods is a student."""

    name: str
    group: str
    seed: int | None
    settings: Settings
    swept: dict[str, Any]
    arms: list[Arm]


@dataclass
class Plan:
    """Everything that a sweep needs.

    `stages` is in an order in which each stage comes after its inputs; `latency` is the fingerprint
    of the one session in which all arms are timed, or None. With `keep_pruned`, that of a search
    that prunes, students that a search has pruned are not trained; any other plan trains them.
    """

    keep_pruned: bool = False
    trials: list[Trial] = field(default_factory=list)
    stages: dict[str, Stage] = field(default_factory=dict)
    costs: list[CostLine] = field(default_factory=list)
    latency: str | None = None

    def add(self, stage: Stage) -> str:
        """Add a stage unless it is there already, and return its fingerprint."""
        self.stages.setdefault(stage.fingerprint, stage)
        return stage.fingerprint

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
        return self.needed_by(
            fingerprint for arm in trial.arms for fingerprint in (arm.evaluate, arm.cost)
        )

    def trials_by_stage(self) -> dict[str, list[Trial]]:
        """Return the trials that each stage is made for, by fingerprint; timing is for all."""
        found: dict[str, list[Trial]] = {fingerprint: [] for fingerprint in self.stages}
        further: dict[tuple[int, Method], set[str]] = {}
        for line in self.costs:
            further.setdefault((id(line.settings), line.method), set()).add(line.cost)
        for trial in self.trials:
            keys = {(id(trial.settings), arm.method) for arm in trial.arms}
            stages = self.of_trial(trial).union(*(further.get(key, set()) for key in keys))
            for fingerprint in stages | ({self.latency} if self.latency else set()):
                found[fingerprint].append(trial)
        return found


@looking_once()
def make_plan(
    points: Iterable[Point],
    seeds: list[int],
    place: dict[str, Any],
    *,
    keep_pruned: bool = False,
) -> Plan:
    """Lay out trials and stages; `place` says where latency will be measured.

    A seed draws the distillation images and the student's order, so a method without a student has
    one row per group: it is in the group's first trial, with no seed.

    Raises:
        NotReady: weights or data that decide a fingerprint are missing.
    """
    plan, timed = Plan(keep_pruned), _Timed()
    looked_at: dict[str, Labelled] = {}
    for point in points:
        data = []
        for spec in point.settings.evaluate.datasets:
            key = spec.model_dump_json()
            looked_at[key] = looked_at.get(key) or labelled(spec)
            data.append(looked_at[key])
        _add_point(plan, timed, point, seeds, data)
    if timed.arms:
        plan.latency = plan.add(
            build.latency_stage(
                list(timed.arms.values()), place, seconds=timed.seconds, how=timed.how
            )
        )
    return plan


@dataclass
class _Timed:
    """The arms to be timed in one session, by digest."""

    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, settings: Settings, stage: Stage) -> str:
        key = digest(stage.settings)
        if settings.measure.latency:
            self.arms[key] = stage.settings
            self.how[key] = settings.backbone
            self.seconds = max(self.seconds, settings.measure.seconds)
        return key


def _add_point(
    plan: Plan, timed: _Timed, point: Point, seeds: list[int], data: list[Labelled]
) -> None:
    methods = [m for m in METHODS if m in point.settings.evaluate.methods]
    is_seeded = point.settings.distils
    for index, seed in enumerate(seeds if is_seeded else seeds[:1]):
        asked: list[Method] = methods if index == 0 else ["student"]
        trial = Trial(
            name=f"{point.group},seed={seed}" if is_seeded else point.group,
            group=point.group,
            seed=seed if is_seeded else None,
            settings=point.settings,
            swept=point.swept,
            arms=[
                _arm(plan, timed, point.settings, seed, method, labelled, resize)
                for labelled in data
                for resize in resizes(point.settings.evaluate, labelled.facts)
                for method in asked
            ],
        )
        plan.trials.append(trial)
    for method in methods:
        for image_hw in point.settings.measure.image_hw:
            stage = build.cost_stage(point.settings, method, image_hw, n_queries=data[0].n_queries)
            plan.costs.append(
                CostLine(
                    method,
                    point.settings,
                    image_hw,
                    plan.add(stage),
                    timed.add(point.settings, stage),
                )
            )


def _arm(
    plan: Plan,
    timed: _Timed,
    settings: Settings,
    seed: int,
    method: Method,
    data: Labelled,
    resize: Resize,
) -> Arm:
    if method == "student":
        for stage in build.student_stages(settings, seed):
            plan.add(stage)
    image_hw = resize.of(data.image_hw)
    cost = build.cost_stage(settings, method, image_hw, n_queries=data.n_queries)
    declared = declare(
        settings.evaluate, data.spec, data.facts, classes=data.classes, resize=resize
    )
    protocol = resolve(
        declared,
        known_sizes(settings.backbone).read_out,
        interpolation=interpolation(settings.backbone),
    )
    plan.add(build.text_stage(settings, data, protocol))
    evaluate = build.evaluate_stage(
        settings, seed, method, data, resize.short_side_px, protocol=protocol
    )
    return Arm(
        method=method,
        data=data,
        short_side_px=resize.short_side_px,
        image_hw=image_hw,
        protocol=declared,
        evaluate=plan.add(evaluate),
        cost=plan.add(cost),
        timed=timed.add(settings, cost),
    )
