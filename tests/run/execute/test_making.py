"""Whole plans on a small model: each stage once, in batches, alongside other sweeps."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from spar_bench.engine.events import RELEASES, Event
from spar_bench.engine.scheduler import Scheduler
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.errors import NotReady
from spar_bench.plan.trials import Plan
from spar_bench.run.context import Context
from spar_bench.run.work import Worker
from spar_bench.stages.base import Stage
from spar_bench.stages.student import TRAINED_FILE
from spar_bench.store import Store
from tests.run.tiny import (
    CPU,
    Notes,
    finished,
    of_kind,
    plan_of,
    scheduler,
    settings,
    write_photographs,
)
from tests.toy import Summary


def test_every_stage_is_made_once_and_found_the_next_time(plan: Plan, store: Store) -> None:
    first, notes = scheduler(plan, store)
    again, notes_again = scheduler(plan, Store(store.root))

    assert first.make(plan.stages) is True
    assert sorted(notes.kinds("made")) == sorted(stage.kind for stage in plan.stages.values())
    assert set(first.outcomes.values()) == {"made"}
    assert again.make(plan.stages) is False
    assert notes_again.all == []
    assert set(again.outcomes.values()) == {"found"}


def test_evaluations_that_share_windows_are_made_in_one_go(plan: Plan, store: Store) -> None:
    making, notes = scheduler(plan, store)

    making.make([of_kind(plan, "evaluate")[1].fingerprint])

    assert [(kind, text) for note, kind, text in notes.all if note == "started"] == [
        ("text", ""),
        ("evaluate", "3 in one go"),
    ]
    assert notes.kinds("made") == ["text", *["evaluate"] * 3]


def test_only_what_is_wanted_joins_a_batch(plan: Plan, store: Store) -> None:
    asked = of_kind(plan, "evaluate")[1]
    making, notes = scheduler(plan, store)
    making.wanted = {asked.fingerprint}

    making.make([asked.fingerprint])

    assert notes.kinds("made") == ["text", "evaluate"]


def test_inputs_of_a_finished_stage_are_not_made_again(plan: Plan, filled: Store) -> None:
    store = filled
    [targets] = of_kind(plan, "targets")
    store.discard(targets.fingerprint)
    student = next(s for s in of_kind(plan, "evaluate") if s.inputs)
    making, notes = scheduler(plan, store)

    assert making.make([student.fingerprint]) is False

    assert notes.all == []
    assert making.make([targets.fingerprint]) is True


@contextmanager
def while_it_waits(making: Scheduler, notes: Notes, store: Store, stage: Stage) -> Iterator[None]:
    """Hold a stage that an scheduler waits for; it has ended after the block."""
    thread = threading.Thread(target=making.make, args=([stage.fingerprint],))
    with store.lock([stage.fingerprint], on_wait=lambda _: None, poll=lambda: None):
        thread.start()
        while not notes.kinds("waiting"):
            thread.join(0.01)
        yield
    thread.join(20)


def test_what_another_sweep_is_making_is_waited_for_and_found(plan: Plan, store: Store) -> None:
    stage = of_kind(plan, "cost")[0]
    making, notes = scheduler(plan, store)
    other, _ = scheduler(plan, store)
    with while_it_waits(making, notes, store, stage):
        scratch = store.output(stage) / "cost.json"
        scratch.write_text("{}")
        store.finish(stage, summary=Summary(), made={})

    assert making.outcomes == {stage.fingerprint: "found"}
    assert notes.kinds("made") == []
    assert other.make([stage.fingerprint]) is False


def test_stage_whose_lease_another_process_has_is_left_and_the_others_are_made(
    plan: Plan, store: Store
) -> None:
    stages, events = of_kind(plan, "evaluate")[:2], list[Event]()
    scheduler(plan, store)[0].make({key for one in stages for key in one.inputs.values()})
    worker = Worker(WorkPlan(plan.stages, Retries()), Context(store, CPU))

    log = store.failures.log(stages[0].fingerprint)
    log.write_text("what the other says")

    with Store(store.root).lock([stages[0].fingerprint], on_wait=print, poll=lambda: None):
        worker.make(stages, events.append)

    ends = [(one.kind, one.fingerprint) for one in events if one.kind in RELEASES]
    assert ends == [("made", stages[1].fingerprint), ("left", stages[0].fingerprint)]
    assert store.find(stages[0]) is None
    assert log.read_text() == "what the other says"


def test_what_another_sweep_gave_up_meanwhile_is_not_tried_again(plan: Plan, store: Store) -> None:
    stage = of_kind(plan, "cost")[0]
    making, notes = scheduler(plan, store)
    with while_it_waits(making, notes, store, stage):
        store.fail(stage, "it diverged", outcome="failed", final=True)

    assert notes.kinds("started") == []
    assert making.outcomes == {stage.fingerprint: "failed"}
    assert making.reasons == {stage.fingerprint: "it diverged"}


@pytest.mark.parametrize(
    ("kind", "changed", "what"),
    [
        ("images", "train_images/0.png", "source"),
        ("targets", "train_images/0.png", "source"),
        ("evaluate", "val_masks/0.png", "dataset"),
    ],
)
def test_files_that_change_after_planning_are_told_of_and_nothing_is_kept(
    clip: Path, store: Store, tmp_path: Path, kind: str, changed: str, what: str
) -> None:
    photographs = write_photographs(tmp_path / "own")
    plan = plan_of(settings(clip, photographs))
    stage = next(stage for stage in of_kind(plan, kind))
    making, _ = scheduler(plan, store)
    making.make(stage.inputs.values())
    Image.fromarray(np.zeros((40, 70), np.uint8)).save(photographs / changed)

    making.make([stage.fingerprint])

    assert making.outcomes[stage.fingerprint] == "failed"
    assert f"{what}: its files must not change while" in making.reasons[stage.fingerprint]
    assert store.find(stage) is None
    assert not (store.root / "scratch" / stage.fingerprint).exists()


def test_work_stays_if_its_files_only_cannot_be_read_when_it_ends(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    [student] = of_kind(plan, "student")
    with monkeypatch.context() as patch:
        patch.setattr(type(student), "require_unchanged", away)
        scheduler(plan, store)[0].make([student.fingerprint])
    failure = store.failure(student)
    left = list((store.root / "scratch" / student.fingerprint).rglob(TRAINED_FILE))

    making, _ = scheduler(plan, store)
    making.make([student.fingerprint])

    assert failure is not None
    assert failure.reason == "the folder is away"
    assert len(left) == 1
    assert making.outcomes[student.fingerprint] == "made"


def away(*_: object) -> None:
    """Fail as a folder does that is not mounted."""
    raise NotReady("the folder is away")


def test_counts_in_the_store_are_one_row_an_image(plan: Plan, whole: Store) -> None:
    for stage in of_kind(plan, "evaluate"):
        counts = load_file(finished(whole, stage).path("counts.safetensors"))
        assert counts["true"].shape == (3, 3)
        assert counts["confusion"].sum() == counts["true"].sum() == 70 * (36 + 42 + 48)


@pytest.mark.parametrize("trainable", ["last_2_blocks", "all", "mlp_of_last_1_blocks"])
def test_stored_bytes_are_near_those_that_were_estimated(
    clip: Path, photographs: Path, store: Store, trainable: str
) -> None:
    plan = plan_of(settings(clip, photographs, student__trainable=trainable))
    scheduler(plan, store)[0].make(plan.stages)

    for kind in ("targets", "student", "evaluate"):
        stages = of_kind(plan, kind)
        stored = sum(finished(store, stage).n_bytes for stage in stages)
        estimated = sum(stage.estimate(plan.stages).n_bytes for stage in stages)
        assert stored == pytest.approx(estimated, rel=0.25)
