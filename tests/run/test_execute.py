"""Whole plans on a small model: each stage once, whatever fails, is damaged or is cut short."""

import errno
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from spar_bench.errors import DataError, StoreError
from spar_bench.plan.estimate import estimate
from spar_bench.plan.trials import Plan
from spar_bench.run import execute
from spar_bench.run.context import Context, Interrupted, Pruned
from spar_bench.run.execute import Executor
from spar_bench.stage import MANIFEST, Finished, Stage
from spar_bench.store import Store
from tests.run.tiny import CLASSES, CPU, Notes, executor, plan_of, settings, write_photographs


@pytest.fixture(scope="module")
def plan(clip: Path, photographs: Path) -> Plan:
    """One student; teachers at three strides, the pretrained model."""
    methods: dict[str, Any] = {"evaluate__methods": ["teacher"]}
    return plan_of(
        settings(clip, photographs),
        settings(clip, photographs, teacher__stride_px=32, **methods),
        settings(clip, photographs, teacher__stride_px=16, **methods),
    )


def kinds(plan: Plan) -> list[str]:
    return [stage.kind for stage in plan.stages.values()]


def of_kind(plan: Plan, kind: str) -> list[Stage]:
    return [stage for stage in plan.stages.values() if stage.kind == kind]


def finished(store: Store, stage: Stage) -> Finished:
    found = store.find(stage)
    assert found is not None
    return found


def contents(store: Store, plan: Plan) -> dict[str, Any]:
    """Return all that a plan's stages hold but times: files by content, summaries."""
    found: dict[str, Any] = {}
    for fingerprint, stage in plan.stages.items():
        one = finished(store, stage)
        found[fingerprint] = one.summary
        for name, entry in one.manifest["files"].items():
            content: object = entry["sha256"]
            if name == "curve.json":
                content = [point[:2] for point in json.loads(one.path(name).read_text())]
            found[f"{fingerprint}/{name}"] = content
    return found


@pytest.fixture(scope="module")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the plan was made and nothing went wrong."""
    store = Store(tmp_path_factory.mktemp("whole"))
    executor(plan, store)[0].make(plan.stages)
    return store


@pytest.fixture(scope="module")
def undisturbed(plan: Plan, whole: Store) -> dict[str, Any]:
    """What the plan's stages hold when nothing goes wrong."""
    return contents(whole, plan)


@pytest.fixture
def filled(whole: Store, tmp_path: Path) -> Store:
    """A copy of the whole store, to be damaged."""
    return Store(shutil.copytree(whole.root, tmp_path / "filled"))


def test_every_stage_is_made_once_and_found_the_next_time(plan: Plan, store: Store) -> None:
    first, notes = executor(plan, store)
    again, notes_again = executor(plan, Store(store.root))

    assert first.make(plan.stages) is True
    assert sorted(notes.kinds("made")) == sorted(kinds(plan))
    assert set(first.outcomes.values()) == {"made"}
    assert again.make(plan.stages) is False
    assert notes_again.all == []
    assert set(again.outcomes.values()) == {"found"}


def test_evaluations_that_share_windows_are_made_in_one_go(plan: Plan, store: Store) -> None:
    making, notes = executor(plan, store)

    making.make([of_kind(plan, "evaluate")[1].fingerprint])

    assert [(kind, text) for note, kind, text in notes.all if note == "started"] == [
        ("evaluate", "3 in one go")
    ]
    assert notes.kinds("made") == ["evaluate"] * 3


def test_only_what_is_wanted_joins_a_batch(plan: Plan, store: Store) -> None:
    asked = of_kind(plan, "evaluate")[1]
    making, notes = executor(plan, store)
    making.wanted = {asked.fingerprint}

    making.make([asked.fingerprint])

    assert notes.kinds("made") == ["evaluate"]


def interrupt_after(monkeypatch: pytest.MonkeyPatch, n_checks: int) -> None:
    """Have the user ask to stop at the n-th look."""
    looks = iter(range(n_checks))

    def check(self: Context) -> None:
        if next(looks, None) is None:
            raise Interrupted

    monkeypatch.setattr(Context, "check", check)


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
            executor(plan, store)[0].make(plan.stages)

    executor(plan, store)[0].make(plan.stages)

    assert contents(store, plan) == undisturbed


@pytest.mark.parametrize("kind", ["targets", "student"])
def test_workers_have_ended_once_a_stage_is_interrupted(
    plan: Plan, store: Store, kind: str
) -> None:
    stage, stop, n_alive = of_kind(plan, kind)[0], threading.Event(), list[int]()
    executor(plan, store)[0].make(stage.inputs.values())

    def report(_: Stage, share: float) -> None:
        if share > 0:
            n_alive.append(len(multiprocessing.active_children()))
            stop.set()

    context = Context(store, CPU, report=report, stop=stop, workers=1)
    with pytest.raises(Interrupted) as caught:
        executor(plan, store, context=context)[0].make([stage.fingerprint])

    assert n_alive == [1]
    assert caught.traceback  # it keeps what is under way
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
    patch.setattr(Path, "unlink", lambda *_, **__: None)  # the dead clean nothing up


@pytest.mark.parametrize("n_writes", [0, 5, 9, 14, 19, 26, 33, 43])
def test_killed_anywhere_and_called_again_it_ends_with_the_same_bytes(
    plan: Plan,
    store: Store,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    n_writes: int,
) -> None:
    monkeypatch.setattr("spar_bench.run.student.CHECKPOINT_S", 0)
    monkeypatch.setattr("spar_bench.run.evaluate.CHECKPOINT_S", 0)
    with monkeypatch.context() as patch:
        killed_at(patch, n_writes)
        with pytest.raises(Killed):
            executor(plan, store)[0].make(plan.stages)

    executor(plan, store)[0].make(plan.stages)

    assert contents(store, plan) == undisturbed
    assert list(store.root.glob("stages/**/.*")) == []


@pytest.mark.parametrize("n_finished", [0, 1, 2])
def test_killed_between_the_ends_of_a_batch_the_rest_is_made_alone(
    plan: Plan,
    store: Store,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    n_finished: int,
) -> None:
    monkeypatch.setattr("spar_bench.run.evaluate.CHECKPOINT_S", 0)
    ends, finish = iter(range(n_finished)), Store.finish
    teachers = {
        s.fingerprint for s in of_kind(plan, "evaluate") if s.settings["inference"]["window_px"]
    }

    def die(self: Store, stage: Stage, **said: Any) -> Finished:
        if stage.fingerprint in teachers and next(ends, None) is None:
            raise Killed
        return finish(self, stage, **said)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "finish", die)
        with pytest.raises(Killed):
            executor(plan, store)[0].make(teachers)
    making, notes = executor(plan, store)

    making.make(plan.stages)

    assert notes.kinds("made").count("evaluate") == len(of_kind(plan, "evaluate")) - n_finished
    assert contents(store, plan) == undisturbed


def teachers_of(plan: Plan) -> list[Stage]:
    return [s for s in of_kind(plan, "evaluate") if s.settings["inference"]["window_px"]]


def interrupted_evaluation(
    plan: Plan, store: Store, patch: pytest.MonkeyPatch, arms: list[Stage]
) -> None:
    """Evaluate some arms together, and stop after an image or two."""
    making, _ = executor(plan, store)
    making.wanted = {arm.fingerprint for arm in arms}
    with patch.context() as inner:
        interrupt_after(inner, 3 + len(CLASSES))  # it looks before each class name too
        with pytest.raises(Interrupted):
            making.make(making.wanted)
    assert (store.scratch(arms[0]) / "checkpoint.safetensors").exists()


def test_checkpoint_of_another_batch_is_not_gone_on_from(
    plan: Plan, store: Store, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = teachers_of(plan)
    interrupted_evaluation(plan, store, monkeypatch, [third])  # its pictures are there
    interrupted_evaluation(plan, store, monkeypatch, [first, second])
    making, notes = executor(plan, store)
    making.wanted = {first.fingerprint, third.fingerprint}

    making.make(making.wanted)
    executor(plan, store)[0].make(plan.stages)

    assert notes.kinds("made") == ["evaluate", "evaluate"]
    assert contents(store, plan) == undisturbed


def test_checkpoint_without_the_pictures_beside_it_is_not_gone_on_from(
    plan: Plan, store: Store, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = teachers_of(plan)
    interrupted_evaluation(plan, store, monkeypatch, arms)
    store.forget_scratch(arms[1].fingerprint)

    executor(plan, store)[0].make(plan.stages)

    assert contents(store, plan) == undisturbed


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "altered": lambda path: path.write_bytes(path.read_bytes()[:-3] + b"abc"),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("images", "truncated"),
        ("targets", "missing"),
        ("student", "altered"),
        ("student", "truncated"),
        ("evaluate", "altered"),
        ("evaluate", "missing"),
        ("cost", "altered"),
    ],
)
def test_damaged_stage_is_told_of_and_made_anew(
    plan: Plan, filled: Store, undisturbed: dict[str, Any], kind: str, how: str
) -> None:
    folder = filled.root / "stages" / kind / of_kind(plan, kind)[0].fingerprint
    DAMAGES[how](next(path for path in sorted(folder.iterdir()) if path.name != MANIFEST))
    making, notes = executor(plan, filled)

    making.make(plan.stages)

    assert notes.kinds("damaged") == notes.kinds("made") == [kind]
    assert contents(filled, plan) == undisturbed


def test_one_damaged_target_costs_one_target(
    plan: Plan, filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    [targets] = of_kind(plan, "targets")
    folder = filled.root / "stages" / "targets" / targets.fingerprint
    (folder / "000001.safetensors").write_bytes(b"")
    written = list[str]()

    def write(path: Path, content: bytes) -> None:
        written.append(path.name)
        path.write_bytes(content)

    monkeypatch.setattr("spar_bench.run.writer.replace_bytes", write)

    executor(plan, filled)[0].make([targets.fingerprint])

    assert written == ["000001.safetensors"]
    assert finished(filled, targets).summary["n_images"] == 3


def test_damage_found_while_an_input_is_read_is_mended_and_the_work_goes_on(
    plan: Plan, filled: Store, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spar_bench.store.HASH_WHOLE_BYTES", 0)  # checksums are seen when read
    [targets], [student] = of_kind(plan, "targets"), of_kind(plan, "student")
    folder = filled.root / "stages" / "targets" / targets.fingerprint
    DAMAGES["altered"](folder / "000002.safetensors")
    filled.discard(student.fingerprint)
    making, notes = executor(plan, filled)

    making.make(plan.stages)

    assert notes.kinds("damaged") == ["targets"]
    assert notes.kinds("made") == ["targets", "student"]
    assert contents(filled, plan) == undisturbed


def test_inputs_of_a_finished_stage_are_not_made_again(plan: Plan, filled: Store) -> None:
    store = filled
    [targets] = of_kind(plan, "targets")
    store.discard(targets.fingerprint)
    student = next(s for s in of_kind(plan, "evaluate") if s.inputs)
    making, notes = executor(plan, store)

    assert making.make([student.fingerprint]) is False

    assert notes.all == []
    assert making.make([targets.fingerprint]) is True


def broken(patch: pytest.MonkeyPatch, kind: str, error: Exception) -> list[int]:
    """Have the maker of a kind raise; returns where its calls are counted."""
    calls = list[int]()

    def fail(stages: list[Stage], context: Context) -> NoReturn:
        calls.append(len(stages))
        raise error

    patch.setitem(execute.MAKERS, kind, fail)
    return calls


def test_failed_stage_leaves_others_alone_and_blocks_what_is_made_from_it(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "student", DataError("photo.png: cannot be read"))
    making, notes = executor(plan, store)

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
    assert (failure["reason"], failure["final"]) == ("photo.png: cannot be read", False)
    others = [f for f in plan.stages if f not in (student.fingerprint, blocked)]
    assert {making.outcomes[f] for f in others} == {"made"}


def test_failed_stage_is_tried_again_the_next_time(plan: Plan, store: Store) -> None:
    with pytest.MonkeyPatch.context() as patch:
        broken(patch, "targets", RuntimeError("out of memory"))
        executor(plan, store)[0].make(plan.stages)
    making, notes = executor(plan, store)

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
    making, _ = executor(plan, store)

    making.make(plan.stages)

    [targets] = of_kind(plan, "targets")
    assert making.reasons[targets.fingerprint] == f"{type(error).__name__}: {error}"
    assert "Traceback" in caplog.text


def test_bug_in_a_batch_is_met_by_each_stage_alone(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = execute.MAKERS["evaluate"]

    def only_alone(stages: list[Stage], context: Context) -> list[dict[str, Any]]:
        if len(stages) > 1 or stages[0].settings["inference"]["stride_px"] == 16:
            raise MemoryError("too much at once")
        return make(stages, context)

    monkeypatch.setitem(execute.MAKERS, "evaluate", only_alone)
    making, notes = executor(plan, store)

    making.make(plan.stages)

    assert notes.kinds("failed") == ["evaluate"]
    assert notes.kinds("made").count("evaluate") == len(of_kind(plan, "evaluate")) - 1


def test_nothing_more_is_made_after_the_first_failure_if_so_asked(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = broken(monkeypatch, "evaluate", DataError("no"))
    making, notes = executor(plan, store, fail_fast=True)

    making.make(plan.stages)

    assert len(calls) == 1
    at_failure = notes.all.index(next(one for one in notes.all if one[0] == "failed"))
    assert "made" not in [note for note, _, _ in notes.all[at_failure:]]
    assert "skipped" in making.outcomes.values()


def test_diverged_student_is_recorded_for_good_and_repeated_only_on_demand(
    clip: Path, photographs: Path, store: Store
) -> None:
    plan = plan_of(settings(clip, photographs, student__learning_rate=1e30))
    making, notes = executor(plan, store)
    making.make(plan.stages)
    again, notes_again = executor(plan, store)
    again.make(plan.stages)
    retried, notes_retried = executor(plan, store, retry=True)
    retried.make(plan.stages)

    [student] = of_kind(plan, "student")
    failure = store.failure(student)
    assert failure is not None
    assert failure["final"] is True
    assert "must stay finite, but is" in failure["reason"]
    assert "lower student.learning_rate (1e+30)" in failure["reason"]
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

    making, notes = executor(plan, store, context=Context(store, CPU, prune=prune))
    making.make(plan.stages)
    search, notes_search = executor(plan, store, keep_pruned=True)
    search.make(plan.stages)
    sweep, notes_sweep = executor(plan, store)
    sweep.make(plan.stages)

    assert notes.kinds("pruned") == notes_search.kinds("pruned") == ["student"]
    assert notes.kinds("failed") == notes_search.kinds("started") == []
    assert notes_sweep.kinds("made") == ["student", "evaluate"]


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
            executor(plan, store)[0].make(plan.stages)

    executor(plan, store)[0].make(plan.stages)

    assert contents(store, plan) == undisturbed


@contextmanager
def while_it_waits(making: Executor, notes: Notes, store: Store, stage: Stage) -> Iterator[None]:
    """Hold a stage that an executor waits for; it has ended after the block."""
    thread = threading.Thread(target=making.make, args=([stage.fingerprint],))
    with store.lock([stage.fingerprint], on_wait=lambda _: None, poll=lambda: None):
        thread.start()
        while not notes.kinds("waiting"):
            thread.join(0.01)
        yield
    thread.join(20)


def test_what_another_sweep_is_making_is_waited_for_and_found(plan: Plan, store: Store) -> None:
    stage = of_kind(plan, "cost")[0]
    making, notes = executor(plan, store)
    other, _ = executor(plan, store)
    with while_it_waits(making, notes, store, stage):
        scratch = store.scratch(stage) / "output" / "cost.json"
        scratch.write_text("{}")
        store.finish(stage, summary={"gflops": 1.0}, made={})

    assert making.outcomes == {stage.fingerprint: "found"}
    assert notes.kinds("made") == []
    assert other.make([stage.fingerprint]) is False


def test_what_another_sweep_gave_up_meanwhile_is_not_tried_again(plan: Plan, store: Store) -> None:
    stage = of_kind(plan, "cost")[0]
    making, notes = executor(plan, store)
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
    making, _ = executor(plan, store)
    making.make(stage.inputs.values())
    Image.fromarray(np.zeros((40, 70), np.uint8)).save(photographs / changed)

    making.make([stage.fingerprint])

    assert making.outcomes[stage.fingerprint] == "failed"
    assert f"{what}: its files must stay as they are" in making.reasons[stage.fingerprint]
    assert store.find(stage) is None
    assert not (store.root / "scratch" / stage.fingerprint).exists()


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
    executor(plan, store)[0].make(plan.stages)

    for kind, small in (("targets", 0.4), ("student", 0.4), ("evaluate", 0.4)):
        stages = of_kind(plan, kind)
        stored = sum(finished(store, stage).n_bytes for stage in stages)
        estimated = sum(estimate(plan, stage).n_bytes for stage in stages)
        manifests = 4_000 * len(stages)
        assert estimated * small < stored < estimated / small + manifests
