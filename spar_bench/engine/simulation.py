"""How long a plan would take on some workers: the scheduler itself, on a clock that jumps."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from spar_bench.backends.base import Backend
from spar_bench.engine.events import Emit, Event
from spar_bench.engine.helping import WORTH_S
from spar_bench.engine.scheduler import Scheduler
from spar_bench.engine.workplan import WorkPlan
from spar_bench.failures import Failure
from spar_bench.plan.devices import STARTUP_S, Speed
from spar_bench.plan.trials import Plan
from spar_bench.stages.base import MOST_PARTS, Stage


@dataclass(frozen=True)
class Simulated:
    """How a plan goes on workers: `seconds` from the first start-up to the last stage.

    `chain_s` is the least that any number of workers takes: the longest chain of stages, each made
    from the one before. `idle_share` is that of the workers' time, 0 to 1. Bytes are those of
    stages, without images and weights.
    """

    n_workers: int
    seconds: float
    chain_s: float
    idle_share: float
    bytes_written: int
    bytes_read: int


def simulate(plan: Plan, to_do: set[str], speed: Speed, n_workers: int) -> Simulated:
    """Return how the stages of a plan that are to do go on some workers of one speed."""
    workers = _Workers(plan, speed, n_workers)
    scheduler = Scheduler(
        plan, _Shelf(to_do), workers, to_do, notify=lambda _: None, clock=lambda: workers.now
    )
    last = to_do & ({plan.latency} if plan.latency else set())
    scheduler.make(to_do - last)
    scheduler.make(last)
    stages = [plan.stages[key] for key in plan.stages if key in to_do]
    spent_s = n_workers * workers.now
    return Simulated(
        n_workers=n_workers,
        seconds=workers.now,
        chain_s=_longest_chain(plan, stages, speed),
        idle_share=1 - workers.busy_s / spent_s if spent_s else 0.0,
        bytes_written=sum(stage.estimate(plan.stages).n_bytes for stage in stages),
        bytes_read=sum(stage.bytes_read(plan.stages) for stage in stages),
    )


def _longest_chain(plan: Plan, stages: Iterable[Stage], speed: Speed) -> float:
    """Return the time of the longest chain, with what can be shared shared, and timing last."""
    ends, timing_s = dict[str, float](), 0.0
    for stage in stages:
        alone_s = speed.seconds([stage], plan.stages)
        if stage.alone:
            timing_s += alone_s
        else:
            begins = max((ends.get(key, 0.0) for key in stage.inputs.values()), default=0.0)
            ends[stage.fingerprint] = begins + alone_s / (MOST_PARTS if stage.helper else 1)
    return STARTUP_S + max(ends.values(), default=0.0) + timing_s


class _Shelf:
    """A store that has all but what is to do."""

    def __init__(self, to_do: set[str]) -> None:
        self._to_do = to_do

    def find(self, stage: Stage) -> object | None:
        return None if stage.fingerprint in self._to_do else stage

    def has(self, stage: Stage) -> bool:
        return stage.fingerprint not in self._to_do

    def failure(self, stage: Stage) -> Failure | None:
        return None

    def is_being_made(self, fingerprint: str) -> bool:
        return False

    def is_made_here(self, fingerprint: str) -> bool:
        return False


@dataclass(eq=False)
class _Job:
    """A batch and the work left, in seconds of one worker; its helpers are told when it ends."""

    batch: list[Stage]
    emit: Emit
    work_s: float
    left_s: float
    helpers: list[Emit] = field(default_factory=list)

    @property
    def pace(self) -> int:
        """The workers that it has."""
        return min(1 + len(self.helpers), MOST_PARTS)


class _Workers(Backend):
    """Workers that only let time pass: `now` is its end, `busy_s` what all of them have worked."""

    def __init__(self, plan: Plan, speed: Speed, n_workers: int) -> None:
        self.now = self.busy_s = 0.0
        self._plan, self._speed, self._n = plan, speed, n_workers
        self._n_started = 0
        self._jobs: list[_Job] = []

    def use(self, plan: WorkPlan) -> None:
        """Do nothing: there is one plan."""

    def room(self, stage: Stage) -> int:
        """Return how many workers are idle; for a stage that takes the machine, 1 if all are."""
        return int(not self._jobs) if stage.alone else self._n - self._n_busy

    def submit(self, batch: list[Stage], emit: Emit) -> None:
        """Begin a batch; a worker that was never used starts up first."""
        work_s = self._speed.seconds(batch, self._plan.stages) + self._start()
        self._jobs.append(_Job(batch, emit, work_s, work_s))

    def help(self, batch: list[Stage], emit: Emit) -> None:
        """Let an idle worker share the work of a batch."""
        job = next(job for job in self._jobs if job.batch[0] is batch[0])
        job.left_s += self._start()
        job.helpers.append(emit)

    def wait(self) -> None:
        """Let time pass until a batch ends, or until an idle worker may decide to help."""
        step_s = min(job.left_s / job.pace for job in self._jobs)
        if self._n_busy < self._n and any(job.batch[0].helper for job in self._jobs):
            step_s = min(step_s, WORTH_S)
        self.now += step_s
        for job in list(self._jobs):
            job.left_s -= step_s * job.pace
            self.busy_s += step_s * job.pace
            if job.left_s <= 1e-9 * job.work_s:
                self._jobs.remove(job)
                self._end(job)
            else:
                share = max(1 - job.left_s / job.work_s, 0.0)
                first = job.batch[0].fingerprint
                job.emit(Event(kind="progress", fingerprint=first, share=share))

    def close(self) -> None:
        """Do nothing."""

    @property
    def _n_busy(self) -> int:
        return sum(1 + len(job.helpers) for job in self._jobs)

    def _start(self) -> float:
        """Return the start-up of the worker that takes what comes next, 0 if one idles."""
        if self._n_busy < self._n_started:
            return 0.0
        self._n_started += 1
        return STARTUP_S

    def _end(self, job: _Job) -> None:
        for stage in job.batch:
            job.emit(Event(kind="made", fingerprint=stage.fingerprint))
            for emit in job.helpers:
                emit(Event(kind="helped", fingerprint=stage.fingerprint))
