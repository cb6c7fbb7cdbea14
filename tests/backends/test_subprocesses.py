"""Worker processes: the same files as one process makes, whoever is killed meanwhile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from spar_bench.backends import _link as link_module
from spar_bench.backends import _pool as pool_module
from spar_bench.backends import subprocesses
from spar_bench.backends._link import Together
from spar_bench.backends._pool import Worker
from spar_bench.engine.events import Event
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.plan.trials import Plan
from spar_bench.processes import MEETING
from spar_bench.store import Store
from tests.backends.pools import (
    kill_once,
    listening,
    on_progress,
    require_by_two,
    require_each_made_once,
    two_workers,
)
from tests.run.conftest import clip, photographs, store
from tests.run.execute.conftest import contents, plan, undisturbed, whole
from tests.run.tiny import of_kind
from tests.small import workers_on
from tests.toy import Summary

__all__ = ["clip", "photographs", "plan", "store", "undisturbed", "whole"]


@pytest.mark.parametrize("line", ['{"kind": "ma', "a library's greeting"])
def test_worker_that_writes_what_is_no_event_is_ended(
    plan: Plan, store: Store, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    code = f"import time; print({line!r}, flush=True); time.sleep(60)"
    with two_workers(subprocesses.Backend, plan, store) as (making, _):
        backend = making.backend
        assert isinstance(backend, subprocesses.Backend)
        process = subprocesses.Process([sys.executable, "-c", code])
        worker = Worker([0], process)

        backend._read(worker)

        assert backend._events.get_nowait() == (worker, None)
        assert process.ending == f"its worker ended with code {-signal.SIGKILL}"
        process.close()
    assert "wrote a line that is no event" in caplog.text


def test_batch_whose_workers_die_is_recorded_as_failed_and_may_be_tried_again(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        subprocesses.Backend,
        "launch",
        lambda *_: subprocesses.Process([sys.executable, "-c", "raise SystemExit(3)"]),
    )
    [stage] = of_kind(plan, "images")

    with two_workers(subprocesses.Backend, plan, store) as (making, notes):
        making.make([stage.fingerprint])

    reason = "its worker ended with code 3, 2 times"
    assert notes.all == [("failed", "images", reason)]
    failure = store.failure(stage)
    assert failure is not None
    assert (failure.reason, failure.final) == (reason, False)


def test_stage_that_another_sweep_has_taken_is_left_to_it_though_its_workers_died(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, other, held = of_kind(plan, "cost")[0], Store(store.root), ExitStack()

    def take_and_die(*_: object) -> subprocesses.Process:
        if not other.leases.is_own(stage.fingerprint):
            held.enter_context(other.lock([stage.fingerprint], on_wait=print, poll=lambda: None))
        return subprocesses.Process([sys.executable, "-c", "raise SystemExit(3)"])

    monkeypatch.setattr(subprocesses.Backend, "launch", take_and_die)
    with two_workers(subprocesses.Backend, plan, store) as (making, notes):

        def finish_once_left(event: Event) -> None:
            notes(event)
            if event.kind == "left":
                (other.output(stage) / "cost.json").write_text("{}")
                other.finish(stage, summary=Summary(), made={})
                held.close()

        making.notify = finish_once_left
        making.make([stage.fingerprint])

    assert [kind for kind, *_ in notes.all] == ["left", "found"]
    assert store.failure(stage) is None


OBEDIENT = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if "stop" in message:
        break
    for name in message["make"]:
        print(json.dumps({"kind": "made", "fingerprint": name}), flush=True)
"""


ONCE = """\
    if globals().setdefault("first", line) is not line:
        sys.exit(4)
"""
"""In its loop: end without a word at the second message."""


def obedient(*_: object) -> subprocesses.Process:
    """Launch what says of all stages that it has made them."""
    return subprocesses.Process([sys.executable, "-c", OBEDIENT])


def test_idle_worker_is_ended_and_started_again_when_needed(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocesses.Backend, "launch", obedient)
    with two_workers(subprocesses.Backend, plan, store) as (making, notes):
        backend = making.backend
        assert isinstance(backend, subprocesses.Backend)
        making.make([of_kind(plan, "images")[0].fingerprint])
        [kept] = backend._workers
        backend.wait()
        assert backend._workers == [kept]

        monkeypatch.setattr(pool_module, "IDLE_S", 0.0)
        backend.wait()
        assert backend._workers == []
        assert kept.link.ending == "its worker ended with code 0"
        making.make([of_kind(plan, "text")[0].fingerprint])

    assert notes.kinds("made") == ["images", "text"]


def test_worker_that_was_dead_before_it_was_given_a_stage_counts_as_no_try(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched, dies_unheard = (
        list[str](),
        OBEDIENT.replace("        break\n", "        break\n" + ONCE),
    )

    def launch(*_: object) -> subprocesses.Process:
        launched.append("raise SystemExit(3)" if launched else dies_unheard)
        return subprocesses.Process([sys.executable, "-c", launched[-1]])

    monkeypatch.setattr(subprocesses.Backend, "launch", launch)
    with two_workers(subprocesses.Backend, plan, store) as (making, notes):
        making.make([of_kind(plan, "images")[0].fingerprint])
        making.make([of_kind(plan, "text")[0].fingerprint])

    assert notes.all == [
        ("made", "images", ""),
        ("failed", "text", "its worker ended with code 3, 2 times"),
    ]
    assert len(launched) == 3


def test_idle_worker_makes_room_where_a_slot_is_lost(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocesses.Backend, "launch", obedient)
    with two_workers(subprocesses.Backend, plan, store) as (making, _):
        backend = making.backend
        assert isinstance(backend, subprocesses.Backend)
        making.make([of_kind(plan, kind)[0].fingerprint for kind in ("images", "text")])
        first, second = sorted(backend._workers, key=lambda worker: worker.idle_since)

        monkeypatch.setattr(subprocesses.Backend, "n_slots", lambda _: 1)
        backend.wait()

        assert backend._workers == [second]
        assert first.link.ending == "its worker ended with code 0"


@pytest.mark.slow
def test_two_workers_make_what_one_process_makes(
    plan: Plan, store: Store, undisturbed: dict[str, Any]
) -> None:
    with two_workers(subprocesses.Backend, plan, store) as (making, notes):
        assert making.make(plan.stages)
        n_workers = len(workers_on(str(store.root)))

    assert n_workers == 2
    assert set(making.outcomes.values()) == {"made"}
    assert sorted(notes.kinds("made")) == sorted(stage.kind for stage in plan.stages.values())
    assert contents(store, plan) == undisturbed
    assert workers_on(str(store.root)) == []


def test_student_gets_the_slots_of_its_processes_and_idle_workers_make_room(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = list[tuple[list[int], list[dict[str, str]]]]()

    def launch(
        _: object, slots: Sequence[int], command: list[str], places: Sequence[Mapping[str, str]]
    ) -> subprocesses.Process:
        launched.append((list(slots), [dict(place) for place in places]))
        return obedient()

    monkeypatch.setattr(subprocesses.Backend, "launch", launch)
    [student] = of_kind(plan, "student")
    with two_workers(subprocesses.Backend, plan, store, processes=2) as (making, notes):
        backend = making.backend
        assert isinstance(backend, subprocesses.Backend)
        assert (backend.room(student), backend.room(of_kind(plan, "text")[0])) == (1, 2)
        making.make([*student.inputs.values(), student.fingerprint])
        [worker] = backend._workers
        assert worker.meeting is not None
        worker.meeting.touch()

    assert notes.kinds("made") == ["images", "targets", "student"]
    assert [slots for slots, _ in launched] == [[0], [0, 1]]
    assert launched[0][1] == [{}]
    assert [place["RANK"] for place in launched[1][1]] == ["0", "1"]
    assert {place["WORLD_SIZE"] for place in launched[1][1]} == {"2"}
    assert {place[MEETING] for place in launched[1][1]} == {str(worker.meeting)}
    assert not worker.meeting.exists()


def test_more_processes_than_slots_are_asked_for_once_nothing_is_busy(
    plan: Plan, store: Store
) -> None:
    with two_workers(subprocesses.Backend, plan, store, processes=3) as (making, _):
        assert making.backend.room(of_kind(plan, "student")[0]) == 1


@pytest.mark.parametrize("dies", [0, 1])
def test_processes_that_train_together_end_together(
    monkeypatch: pytest.MonkeyPatch, dies: int
) -> None:
    monkeypatch.setattr(link_module, "FOLLOW_S", 0.2)
    released = list[str]()
    started = [obedient() for _ in range(2)]
    worker = Together(started, lambda: released.append("it"))

    started[dies].kill()

    assert worker.has_ended(10)
    along = ", which trained along" if dies else ""
    assert worker.ending == f"its worker ended with code {-signal.SIGKILL}{along}"
    assert list(worker.lines()) == []
    worker.close()
    assert released == ["it"]
    assert all(one.has_ended(10) for one in started)


def rank_of(pid: int) -> str:
    """Return the number of a process among those that train together."""
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(one.split("=", 1) for one in variables if one)["RANK"]


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_student_trained_by_two_processes_is_that_of_one(
    plan: Plan, store: Store, whole: Store, dies: bool
) -> None:
    killed = list[int]()

    def look() -> dict[str, list[str]]:
        at = listening(str(store.root))
        if dies:
            [second] = [pid for pid in workers_on(str(store.root)) if rank_of(pid) == "1"]
            killed.append(second)
            os.kill(second, signal.SIGKILL)
        return at

    [student] = of_kind(plan, "student")
    with two_workers(subprocesses.Backend, plan, store, processes=2) as (making, notes):
        at = on_progress(making, notes, student, look)
        making.make([student.fingerprint])

    assert set(making.outcomes.values()) == {"made"}
    assert len(killed) == dies
    assert {address for each in at.values() for address in each} == {"0100007F"}  # 127.0.0.1
    require_by_two(student, store, whole)
    assert workers_on(str(store.root)) == []
    assert not list((store.root / "plans").glob("*.meeting"))


@pytest.mark.slow
def test_worker_that_is_killed_is_replaced_and_its_work_resumed(
    plan: Plan, store: Store, undisturbed: dict[str, Any]
) -> None:
    with two_workers(subprocesses.Backend, plan, store) as (making, notes):
        killed = kill_once(making, notes, lambda: workers_on(str(store.root)))
        making.make(plan.stages)

    assert killed
    require_each_made_once(making, notes)
    assert contents(store, plan) == undisturbed


@pytest.mark.slow
def test_workers_end_soon_after_their_parent_is_killed(
    plan: Plan, store: Store, tmp_path: Path
) -> None:
    path = WorkPlan(plan.stages, Retries()).save(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, sys.executable, str(path), str(store.root)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "begun\n"
    alive = workers_on(str(store.root))

    parent.kill()
    parent.communicate()

    deadline = time.monotonic() + 10
    while workers_on(str(store.root)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(alive) == 1
    assert workers_on(str(store.root)) == []


PARENT = """
import json, subprocess, sys
python, path, store = sys.argv[1:]
worker = subprocess.Popen(
    [python, "-m", "spar_bench", "work", path, "-", "--store", store, "--device", "cpu"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
from spar_bench.engine.workplan import read_work_plan
from pathlib import Path
plan = read_work_plan(Path(path))
first = next(iter(plan.stages))
worker.stdin.write(json.dumps({"plan": path, "make": [first]}) + "\\n")
worker.stdin.flush()
worker.stdout.readline()
print("begun", flush=True)
worker.wait()
"""
