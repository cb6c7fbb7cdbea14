"""Stages that fail, diverge or are pruned, and what happens to the others."""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from spar_bench.errors import DataError, Pruned
from spar_bench.plan.trials import Plan
from spar_bench.run.context import Context
from spar_bench.run.work import Maker, maker_of
from spar_bench.stages.base import Stage, Summary, kind_of
from spar_bench.stages.evaluate import Stage as Evaluate
from spar_bench.store import Store
from tests.run.tiny import CPU, of_kind, plan_of, scheduler, settings


def replace_maker(patch: pytest.MonkeyPatch, kind: str, maker: Maker) -> Maker:
    """Have a kind of stage made by another function; returns the one that made it so far."""
    before = maker_of(kind_of(kind))
    module, _, name = kind_of(kind).maker.partition(":")
    patch.setattr(f"{module}.{name}", maker)
    return before


def broken(patch: pytest.MonkeyPatch, kind: str, error: Exception) -> list[int]:
    """Have the maker of a kind raise; returns where its calls are counted."""
    calls = list[int]()

    def fail(stages: list[Stage], context: Context) -> NoReturn:
        calls.append(len(stages))
        raise error

    replace_maker(patch, kind, fail)
    return calls


def test_failed_stage_leaves_others_alone_and_blocks_what_is_made_from_it(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "student", DataError("photo.png: cannot be read"))
    making, notes = scheduler(plan, store)

    making.make(plan.stages)

    assert notes.kinds("failed") == ["student"]
    assert notes.kinds("blocked") == ["evaluate"]
    [student] = of_kind(plan, "student")
    [blocked] = [f for f, outcome in making.outcomes.items() if outcome == "blocked"]
    assert making.reasons[blocked] == (
        "a stage that it needs was not made: photo.png: cannot be read"
    )
    failure = store.failure(student)
    assert failure is not None
    assert (failure.reason, failure.final) == ("photo.png: cannot be read", False)
    others = [f for f in plan.stages if f not in (student.fingerprint, blocked)]
    assert {making.outcomes[f] for f in others} == {"made"}


def test_failed_stage_is_tried_again_the_next_time(plan: Plan, store: Store) -> None:
    with pytest.MonkeyPatch.context() as patch:
        broken(patch, "targets", RuntimeError("out of memory"))
        scheduler(plan, store)[0].make(plan.stages)
    making, notes = scheduler(plan, store)

    making.make(plan.stages)

    assert sorted(notes.kinds("made")) == ["evaluate", "student", "targets"]
    assert [store.failure(stage) for stage in plan.stages.values()] == [None] * len(plan.stages)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), FileNotFoundError("photo.png")])
def test_bug_names_its_kind_and_is_logged_with_its_traceback(
    plan: Plan,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    broken(monkeypatch, "targets", error)
    making, _ = scheduler(plan, store)

    making.make(plan.stages)

    [targets] = of_kind(plan, "targets")
    assert making.reasons[targets.fingerprint] == f"{type(error).__name__}: {error}"
    assert "Traceback" in caplog.text


def test_failure_of_one_stage_of_a_batch_neither_repeats_nor_loses_the_others(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[int]()

    def without_one(stages: list[Stage], context: Context) -> list[Summary | Exception]:
        calls.append(len(stages))
        found = make(stages, context)
        strides = [one.settings.inference.stride_px for one in stages if isinstance(one, Evaluate)]
        return [
            MemoryError("too much at once") if stride == 16 else result
            for stride, result in zip(strides, found, strict=True)
        ]

    make = replace_maker(monkeypatch, "evaluate", without_one)
    making, notes = scheduler(plan, store)

    making.make(plan.stages)

    assert notes.kinds("failed") == ["evaluate"]
    [key] = [path.stem for path in store.failures.folder.glob("*.json")]
    assert [path.stem for path in store.failures.folder.glob("*.log")] == [key]  # its own, no other
    assert store.failures.said(key)[-1].endswith("MemoryError: too much at once")
    assert notes.kinds("made").count("evaluate") == len(of_kind(plan, "evaluate")) - 1
    assert sorted(calls) == [1, 1, 3]  # single passes, and three strides once


def test_nothing_more_is_made_after_the_first_failure_if_so_asked(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = broken(monkeypatch, "evaluate", DataError("no"))
    making, notes = scheduler(plan, store, fail_fast=True)

    making.make(plan.stages)

    assert len(calls) == 1
    at_failure = notes.all.index(next(one for one in notes.all if one[0] == "failed"))
    assert "made" not in [note for note, _, _ in notes.all[at_failure:]]
    assert "skipped" in making.outcomes.values()


def test_diverged_student_is_recorded_for_good_and_repeated_only_on_demand(
    clip: Path, photographs: Path, store: Store
) -> None:
    plan = plan_of(settings(clip, photographs, student__learning_rate=1e30))
    making, notes = scheduler(plan, store)
    making.make(plan.stages)
    again, notes_again = scheduler(plan, store)
    again.make(plan.stages)
    retried, notes_retried = scheduler(plan, store, retry=True)
    retried.make(plan.stages)

    [student] = of_kind(plan, "student")
    failure = store.failure(student)
    assert failure is not None
    assert failure.final is True
    assert "must stay finite, but is" in failure.reason
    assert "lower student.learning_rate (1e+30)" in failure.reason
    for told in (notes, notes_again, notes_retried):
        assert told.kinds("failed") == ["student"]
        assert told.kinds("blocked") == ["evaluate"]
    assert "student" in notes.kinds("started")
    assert notes_again.kinds("started") == []
    assert notes_retried.kinds("started") == ["student"]
    assert not (store.root / "scratch" / student.fingerprint).exists()


def test_pruned_student_is_no_failure_and_is_left_alone_by_a_search_only(
    plan: Plan, store: Store
) -> None:
    def prune(epoch: int, loss: float) -> None:
        raise Pruned(f"after epoch {epoch}")

    making, notes = scheduler(plan, store, context=Context(store, CPU, prune=prune))
    making.make(plan.stages)
    search, notes_search = scheduler(replace(plan, keep_pruned=True), store)
    search.make(plan.stages)
    sweep, notes_sweep = scheduler(plan, store)
    sweep.make(plan.stages)

    assert notes.kinds("pruned") == notes_search.kinds("pruned") == ["student", "evaluate"]
    assert notes.kinds("failed") == notes_search.kinds("started") == []
    assert notes_sweep.kinds("made") == ["student", "evaluate"]
