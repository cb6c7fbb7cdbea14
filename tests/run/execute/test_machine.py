"""Stages share this machine with other work; what is timed has it alone."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from spar_bench.engine.events import Event
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.errors import Interrupted
from spar_bench.machine_lock import machine_lock
from spar_bench.plan.trials import Plan
from spar_bench.run.context import Context, ignore
from spar_bench.run.work import Worker
from spar_bench.stages.base import Stage
from spar_bench.store import Store
from tests.run.execute.test_damage import DAMAGES
from tests.run.tiny import CPU, finished, of_kind, plan_of, scheduler, settings


class Taken(Exception):
    """The machine is not free."""


def taken() -> None:
    raise Taken


@dataclass
class StoppedWhileItWaits(Context):
    """A context whose user stops at the third look after waiting was announced."""

    is_waiting: bool = False
    n_looks: int = 0

    def check(self) -> None:
        self.n_looks += self.is_waiting
        if self.n_looks == 3:
            self.stop.set()
        super().check()


@pytest.mark.parametrize(
    ("kind", "held_alone", "announced"),
    [
        ("images", True, "latency is being timed on this machine"),
        ("latency", True, "other work on this machine ends first"),
        ("latency", False, "other work on this machine ends first"),
    ],
)
def test_stage_waits_for_the_machine_announces_it_once_and_can_be_interrupted(
    clip: Path, photographs: Path, store: Store, kind: str, held_alone: bool, announced: str
) -> None:
    plan = plan_of(settings(clip, photographs, measure={"latency": True, "seconds": 0.01}))
    [stage] = of_kind(plan, kind)
    context, events = StoppedWhileItWaits(store, CPU), list[Event]()

    def emit(event: Event) -> None:
        events.append(event)
        context.is_waiting |= event.kind == "waiting"

    worker = Worker(WorkPlan(plan.stages, Retries()), context)
    with (
        machine_lock(alone=held_alone, on_wait=taken, poll=ignore),
        pytest.raises(Interrupted),
    ):
        worker.make([stage], emit)

    assert [(one.kind, one.text) for one in events] == [("started", ""), ("waiting", announced)]
    assert store.find(stage) is None


def test_stages_are_made_beside_other_work(plan: Plan, store: Store) -> None:
    [stage] = of_kind(plan, "images")

    with machine_lock(alone=False, on_wait=taken, poll=taken):
        making, notes = scheduler(plan, store)
        making.make([stage.fingerprint])

    assert notes.kinds("waiting") == []
    assert finished(store, stage).summary == {"n_images": 3}


def test_machine_is_held_while_a_stage_is_made_and_free_while_others_work_is_waited_for(
    plan: Plan, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spar_bench.shelf.HASH_WHOLE_BYTES", 0)  # checksums are seen when read
    [targets], [student] = of_kind(plan, "targets"), of_kind(plan, "student")
    DAMAGES["altered"](filled.root / f"stages/targets/{targets.fingerprint}/000002.safetensors")
    filled.discard(student.fingerprint)
    free_at = dict[tuple[str, str], bool]()

    def report(event: Event) -> None:
        stage: Stage = plan.stages[event.fingerprint]
        with ExitStack() as stack:
            try:
                stack.enter_context(machine_lock(alone=True, on_wait=taken, poll=ignore))
                is_free = True
            except Taken:
                is_free = False
        free_at[event.kind, stage.kind] = is_free

    making, _ = scheduler(plan, filled)
    making.notify = report
    making.make([student.fingerprint])

    # A stage is damaged when its lease has been waited for, in the midst of making the student.
    assert free_at["damaged", "targets"]
    assert not free_at["progress", "student"]
    assert not free_at["made", "student"]
