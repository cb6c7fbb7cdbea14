"""Plans that are interrupted, killed or out of disk space, and resume to the same bytes."""

import errno
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from spar_bench.engine.events import Event
from spar_bench.errors import Interrupted, StoreError
from spar_bench.plan.trials import Plan
from spar_bench.run.context import Context
from spar_bench.stage import Finished
from spar_bench.stages import evaluate
from spar_bench.stages.base import Stage
from spar_bench.store import Store
from tests.run.execute.conftest import contents
from tests.run.tiny import (
    CPU,
    interrupt_after,
    of_kind,
    of_type,
    scheduler,
)


@pytest.mark.parametrize("n_checks", [0, 3, 8, 12, 15, 20])
def test_interrupted_anywhere_and_called_again_it_ends_with_the_same_bytes(
    plan: Plan,
    store: Store,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    n_checks: int,
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, n_checks)
        with pytest.raises(Interrupted):
            scheduler(plan, store)[0].make(plan.stages)

    scheduler(plan, store)[0].make(plan.stages)

    assert contents(store, plan) == undisturbed


@pytest.mark.parametrize("kind", ["targets", "student"])
def test_workers_have_ended_once_a_stage_is_interrupted(
    plan: Plan, store: Store, kind: str
) -> None:
    stage, stop, n_alive = of_kind(plan, kind)[0], threading.Event(), list[int]()
    scheduler(plan, store)[0].make(stage.inputs.values())

    def watch(event: Event) -> None:
        if event.share > 0:
            n_alive.append(len(multiprocessing.active_children()))
            stop.set()

    context = Context(store, CPU, stop=stop, workers=1)
    making, _ = scheduler(plan, store, context=context)
    making.notify = watch
    with pytest.raises(Interrupted) as caught:
        making.make([stage.fingerprint])

    assert n_alive == [1]
    assert caught.traceback  # it keeps unfinished work alive
    assert multiprocessing.active_children() == []


class Killed(BaseException):
    """A kill, which no handler of errors may catch."""


def killed_at(patch: pytest.MonkeyPatch, n_writes: int) -> None:
    """Die at the n-th write of any file, half of it written."""
    writes, write = iter(range(n_writes)), Path.write_bytes

    def half(self: Path, content: bytes) -> int:
        if next(writes, None) is None:
            write(self, content[: len(content) // 2])
            raise Killed
        return write(self, content)

    patch.setattr(Path, "write_bytes", half)
    patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process cleans nothing up


@pytest.mark.parametrize("n_writes", [0, 5, 9, 14, 19, 26, 33, 43])
def test_killed_anywhere_and_called_again_it_ends_with_the_same_bytes(
    plan: Plan,
    store: Store,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    n_writes: int,
) -> None:
    monkeypatch.setattr("spar_bench.run.lockstep.SAVE_EVERY_S", 0)
    monkeypatch.setattr("spar_bench.run.evaluate.SAVE_EVERY_S", 0)
    with monkeypatch.context() as patch:
        killed_at(patch, n_writes)
        with pytest.raises(Killed):
            scheduler(plan, store)[0].make(plan.stages)

    scheduler(plan, store)[0].make(plan.stages)

    assert contents(store, plan) == undisturbed
    assert list(store.root.glob("stages/**/.*")) == []


def test_student_whose_resume_state_cannot_be_read_fails_for_now_and_goes_on_later(
    plan: Plan,
    store: Store,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [student] = of_kind(plan, "student")
    scheduler(plan, store)[0].make(student.inputs.values())
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4)
        with pytest.raises(Interrupted):
            scheduler(plan, store)[0].make([student.fingerprint])
    state = store.scratch(student) / "resume.safetensors"
    state.rename(store.root / "aside")
    state.symlink_to(state)  # reading it fails: too many levels of symbolic links
    making, notes = scheduler(plan, store)

    making.make(plan.stages)
    state.unlink()
    (store.root / "aside").rename(state)
    scheduler(plan, store)[0].make(plan.stages)

    assert notes.kinds("failed") == ["student"]
    failure = making.reasons[student.fingerprint]
    assert failure.startswith(f"{state}: must be readable, but reading failed")
    assert contents(store, plan) == undisturbed


def teachers_of(plan: Plan) -> list[Stage]:
    return [s for s in of_type(plan, evaluate.Stage) if s.settings.inference.window_px]


@pytest.mark.parametrize("n_finished", [0, 1, 2])
def test_killed_between_the_ends_of_a_batch_the_rest_is_made_alone(
    plan: Plan,
    store: Store,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    n_finished: int,
) -> None:
    monkeypatch.setattr("spar_bench.run.evaluate.SAVE_EVERY_S", 0)
    ends, finish = iter(range(n_finished)), Store.finish
    teachers = {stage.fingerprint for stage in teachers_of(plan)}

    def die(self: Store, stage: Stage, **said: Any) -> Finished:
        if stage.fingerprint in teachers and next(ends, None) is None:
            raise Killed
        return finish(self, stage, **said)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "finish", die)
        with pytest.raises(Killed):
            scheduler(plan, store)[0].make(teachers)
    making, notes = scheduler(plan, store)

    making.make(plan.stages)

    assert notes.kinds("made").count("evaluate") == len(of_kind(plan, "evaluate")) - n_finished
    assert contents(store, plan) == undisturbed


def interrupted_evaluation(
    plan: Plan, store: Store, patch: pytest.MonkeyPatch, arms: list[Stage]
) -> None:
    """Evaluate some arms together, and stop after an image or two."""
    scheduler(plan, store)[0].make(arm.inputs["text"] for arm in arms)
    making, _ = scheduler(plan, store)
    making.wanted = {arm.fingerprint for arm in arms}
    with patch.context() as inner:
        interrupt_after(inner, 2)
        with pytest.raises(Interrupted):
            making.make(making.wanted)
    assert list(store.root.glob("scratch/*/parts-*/*/resume.safetensors"))


def test_resume_state_of_another_batch_is_not_used(
    plan: Plan, store: Store, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = teachers_of(plan)
    interrupted_evaluation(plan, store, monkeypatch, [third])  # its pictures exist
    interrupted_evaluation(plan, store, monkeypatch, [first, second])
    making, notes = scheduler(plan, store)
    making.wanted = {first.fingerprint, third.fingerprint}

    making.make(making.wanted)
    scheduler(plan, store)[0].make(plan.stages)

    assert notes.kinds("made") == ["evaluate", "evaluate"]
    assert contents(store, plan) == undisturbed


def test_full_disk_stops_the_sweep_with_one_line_and_loses_nothing(
    plan: Plan, store: Store, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, write = iter(range(4)), Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if next(writes, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StoreError, match="the disk is full; finished work is kept"):
            scheduler(plan, store)[0].make(plan.stages)

    scheduler(plan, store)[0].make(plan.stages)

    assert contents(store, plan) == undisturbed
