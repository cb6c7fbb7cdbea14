"""Rows of a plan, read from the store: what is finished, and what is not and why."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from spar_bench.plan.trials import Plan, PlannedCost, PlannedRow, PlannedSizes, Trial
from spar_bench.resolve import ResolvedPoint
from spar_bench.results import Cost, CostRow, Row, SizesRow, Status, Training
from spar_bench.session.over_sizes import over_sizes
from spar_bench.session.training import training_of
from spar_bench.spec.schema import Settings
from spar_bench.stage import Damaged, Finished, digest
from spar_bench.stages import cost, evaluate, latency
from spar_bench.stages.base import Stage
from spar_bench.store import Store
from spar_bench.validation import Raw

NOT_MADE = "it has not been run yet"


@dataclass(frozen=True)
class State:
    """State of a stage: finished, or why not; `final`: the next sweep does not try it again."""

    status: Status
    reason: str = ""
    finished: Finished | None = None
    final: bool = False


@dataclass
class Collector:
    """Reads a plan's rows from the store; looks up each stage once."""

    experiment: str
    plan: Plan
    store: Store
    _states: dict[str, State] = field(default_factory=dict)
    _trainings: dict[str, Training] = field(default_factory=dict)

    def state(self, fingerprint: str) -> State:
        """Return the state of a stage; a damaged one counts as missing."""
        if fingerprint not in self._states:
            self._states[fingerprint] = self._look(self.plan.stages[fingerprint])
        return self._states[fingerprint]

    def rows(self, trial: Trial) -> list[Row]:
        """Return a trial's lines of results.csv."""
        return [self._row(trial, row) for row in trial.rows]

    def trial_state(self, trial: Trial) -> State:
        """Return the state of a trial, which is finished when all its rows are."""
        states = [self.state(row.evaluate) for row in trial.rows]
        for status in ("failed", "blocked", "pruned", "skipped"):
            for state in states:
                if state.status == status:
                    return State("failed" if status == "blocked" else status, state.reason)
        return State("finished")

    def cost(self, priced: str, timed: str, image_hw: tuple[int, int]) -> Cost:
        """Return the cost of one image, with all measurements so far."""
        state = self.state(priced)
        if state.finished is None:
            return Cost(
                image_h=image_hw[0],
                image_w=image_hw[1],
                cost_status="failed" if state.status == "failed" else "not_measured",
            )
        counted = state.finished.summary_as(cost.Summary)
        known = Cost(
            image_h=image_hw[0],
            image_w=image_hw[1],
            n_windows=counted.n_windows,
            gflops=counted.gflops,
            params_m=counted.params_m,
            cost_status=self._latency_status,
        )
        timings = self._timings
        if timings is None or timed not in timings.by_key:
            return known
        timing = timings.by_key[timed]
        return replace(
            known,
            latency_p10_ms=timing.latency_p10_ms,
            latency_p50_ms=timing.latency_p50_ms,
            latency_p90_ms=timing.latency_p90_ms,
            encoder_p50_ms=timing.encoder_p50_ms,
            peak_mib=timing.peak_mib,
            window_batch=timing.window_batch,
            device=self._device,
            latency_note=timings.note(timed),
            cost_status="finished",
        )

    def training(self, evaluation: str) -> Training:
        """Return what the student of an evaluation took; empty without one, or until it is made."""
        student = self.plan.stages[evaluation].inputs.get("student")
        finished = None if student is None else self.state(student).finished
        if student is None or finished is None:
            return Training()
        if student not in self._trainings:
            stages = self.plan.stages
            self._trainings[student] = training_of(stages[student], finished, stages, self.store)
        return self._trainings[student]

    def cost_row(self, line: PlannedCost) -> CostRow:
        """Return a line of costs.csv."""
        return CostRow(**self._of_line(line))

    def sizes_row(self, line: PlannedSizes) -> SizesRow:
        """Return a line of sizes.csv."""
        return SizesRow(
            **self._of_line(line),
            eval_short_side_px=line.short_side_px,
            over=over_sizes(line, self._timings),
        )

    def _of_line(self, line: PlannedCost | PlannedSizes) -> dict[str, Any]:
        """Return who reads images in a line, and what one of the line's size costs."""
        inference = line.point.inference(line.method)
        return {
            **self._reading(line.point, line),
            "window_px": inference.window_px,
            "stride_px": inference.stride_px,
        }

    def _reading(
        self, point: ResolvedPoint, line: PlannedRow | PlannedCost | PlannedSizes
    ) -> dict[str, Any]:
        """Return who reads images, and at what cost; not the window, which is a teacher's too."""
        inference, evaluated = point.inference(line.method), point.settings.evaluate
        return {
            "backbone": point.backbone.display_name,
            "random_weights": point.has_random_weights,
            "method": line.method,
            "inference": inference.kind,
            "average": inference.average,
            "refiner": point.refiner_name,
            "classifier": evaluated.classifier.name,
            "dataset": line.data.display_name,
            "dtype": evaluated.precision,
            "cost": self.cost(line.cost, line.timed, line.image_hw),
        }

    def _row(self, trial: Trial, planned: PlannedRow) -> Row:
        point, settings, state = trial.point, trial.settings, self.state(planned.evaluate)
        inference, patch_px = point.inference(planned.method), point.backbone.sizes.patch_px
        taught = planned.method == "student" and settings.distils
        slides = planned.method == "teacher" or taught
        return Row(
            experiment=self.experiment,
            group=trial.group,
            trial=trial.name,
            seed=trial.seed if taught else None,
            **self._reading(point, planned),
            protocol=planned.protocol.name,
            window_px=point.window_px if slides else None,
            stride_px=settings.teacher.stride_px if slides else None,
            train_short_side_px=settings.images.short_side_px if taught else None,
            loss=trial.point.loss.name if taught else None,
            trainable=settings.student.trainable if taught else None,
            checkpoint=_checkpoint(settings) if planned.method == "student" else None,
            dataset_digest=digest(planned.data.identity),
            eval_short_side_px=planned.short_side_px,
            n_listed=planned.data.n_listed,
            **_scored(state),
            status=state.status,
            training=self.training(planned.evaluate),
            reason=state.reason or self._remark(planned, state, inference.window_px),
            divides_patch=settings.teacher.stride_px % patch_px == 0 if slides else None,
            swept=point.swept,
            probes=self._probes(planned),
            stages=self._stages(planned),
        )

    def _probes(self, planned: PlannedRow) -> dict[str, Raw]:
        """Return the summaries of a row's probes, by kind; empty for one that is not finished."""
        states = {kind: self.state(key).finished for kind, key in planned.probes.items()}
        return {kind: {} if one is None else one.summary for kind, one in states.items()}

    def _remark(self, planned: PlannedRow, state: State, window_px: int | None) -> str:
        """Return remarks about a row that has its number, or ""."""
        found = state.finished
        skipped = [] if found is None else left_out(found)
        probes = {kind: self.state(key) for kind, key in planned.probes.items()}
        failed = [f"{kind}: {one.reason}" for kind, one in probes.items() if one.status == "failed"]
        return "; ".join(filter(None, [clipped(window_px, planned.image_hw), *skipped, *failed]))

    def _stages(self, planned: PlannedRow) -> dict[str, str]:
        """Return the stages of a row's numbers, by role; those that it lacks, by kind."""
        stages = {
            "evaluate": planned.evaluate,
            "cost": planned.cost,
            **planned.probes,
            **self.plan.stages[planned.evaluate].inputs,
        }
        if self.plan.latency and self._timings and planned.timed in self._timings.by_key:
            stages["latency"] = self.plan.latency
        if self.state(planned.evaluate).finished is None:
            for key in self.plan.needed_by({planned.evaluate}):
                stages.setdefault(self.plan.stages[key].kind, key)
        return stages

    def _look(self, stage: Stage) -> State:
        try:
            finished = self.store.find(stage)
        except Damaged as error:
            return State("skipped", str(error))
        if finished is not None:
            return State("finished", finished=finished)
        for fingerprint in stage.inputs.values():
            if fingerprint not in self.plan.stages:  # targets that are not kept
                continue
            needed = self.state(fingerprint)
            if needed.status in ("failed", "blocked"):
                return State("blocked", needed.reason, final=needed.final)
            if needed.status == "pruned":
                return needed
        failure = self.store.failure(stage)
        if failure is None or (failure.outcome == "pruned" and not self.plan.keep_pruned):
            return State("skipped", NOT_MADE)
        return State(failure.outcome, failure.reason, final=failure.final)

    @cached_property
    def _latency(self) -> State | None:
        return None if self.plan.latency is None else self.state(self.plan.latency)

    @property
    def _latency_status(self) -> Status:
        failed = self._latency is not None and self._latency.status == "failed"
        return "failed" if failed else "not_measured"

    @cached_property
    def _timings(self) -> latency.Timings | None:
        if self._latency is None or self._latency.finished is None:
            return None
        return latency.read_timings(self._latency.finished)

    @cached_property
    def _device(self) -> str | None:
        if self.plan.latency is None:
            return None
        session = self.plan.stages[self.plan.latency]
        assert isinstance(session, latency.Stage), "the plan's session of timings"
        return session.settings.machine.device if session.settings.machine else None


def _scored(state: State) -> dict[str, Any]:
    """Return what an evaluation found, None for each if it is not finished."""
    if state.finished is None:
        return {"miou": None, "n_images": None, "n_skipped": None}
    return state.finished.summary_as(evaluate.Summary).model_dump()


def clipped(window_px: int | None, image_hw: tuple[int, int]) -> str:
    """Return a remark if a window does not fit into an image, else ""."""
    if window_px is None or window_px <= min(image_hw):
        return ""
    height, width = image_hw
    return f"the window of {window_px} px is clipped to the image of {height}x{width} px"


def left_out(evaluation: Finished) -> list[str]:
    """Return a remark if images of an evaluation could not be read, else nothing."""
    if not evaluation.summary_as(evaluate.Summary).n_skipped:
        return []
    reasons = evaluate.read_skipped(evaluation)
    what = "1 image" if len(reasons) == 1 else f"{len(reasons)} images, the first"
    return [f"could not be read and left out: {what}: {reasons[0]}"]


def _checkpoint(settings: Settings) -> str | None:
    """Return the name of the file that a student was imported from."""
    path = settings.student.checkpoint
    return None if path is None else Path(path).name
