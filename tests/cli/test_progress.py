"""What is shown while a sweep runs: a table on a terminal, lines elsewhere."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from spar_bench.cli.progress import Board, Lines
from spar_bench.cli.stopping import STOPPING, Stopper
from spar_bench.conflicts import read_spec
from spar_bench.engine.events import NO_SLOT, Event
from spar_bench.plan.devices import STAGE_S, Speed
from spar_bench.plan.making import make_plan
from spar_bench.plan.trials import Plan
from spar_bench.session.collect import Collector, State
from spar_bench.session.tally import PLAN_S, Tally
from spar_bench.stages.base import Stage
from spar_bench.store import Store
from tests.small import DIVERGING, TINY, write_spec


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "store")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Return the plan of three trials and eleven stages."""
    monkeypatch.chdir(tmp_path)
    return make_plan(read_spec(Path(write_spec(TINY))).points, [0], None)


def tell(watcher: Tally, kind: Any, stage: Stage, text: str = "", share: float = 0.0) -> None:
    """Tell a watcher what happened to a stage."""
    event = Event(kind=kind, fingerprint=stage.fingerprint, text=text, share=share)
    watcher.note(event, stage)


def board_of(width: int) -> tuple[Board, io.StringIO]:
    """Return a live table on a terminal of that width, and the output printed above it."""
    above = io.StringIO()
    console = Console(file=above, width=width, force_terminal=True, color_system=None)
    return Board(console, Stopper()), above


def drawn(board: Board, width: int) -> list[str]:
    """Return the lines of the table on a terminal of that width."""
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(board.render())
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize("width", [40, 60, 79, 80, 200])
def test_table_has_two_lines_of_the_terminals_width_at_most(
    plan: Plan, store: Store, width: int
) -> None:
    board, _ = board_of(width)
    board.planned(plan, store)
    student = next(s for s in plan.stages.values() if s.kind == "student")

    tell(board, "started", student, "")
    tell(board, "progress", student, share=0.25)

    lines = drawn(board, width)
    assert len(lines) == 2
    assert max(map(len, lines)) <= width
    assert lines[1].startswith("student")
    assert "25%" in lines[1]
    assert ("█████░" in lines[1]) == (width >= 80)


def test_several_workers_have_a_line_each_and_the_sweep_a_caption(plan: Plan, store: Store) -> None:
    board, _ = board_of(120)
    board.planned(plan, store)
    by_kind = {stage.kind: stage for stage in plan.stages.values()}
    targets, text = by_kind["targets"], by_kind["text"]

    def say(kind: Any, stage: Stage, slot: int, **more: Any) -> None:
        board.note(Event(kind=kind, fingerprint=stage.fingerprint, slot=slot, **more), stage)

    say("started", targets, 1, node="n2", device="cuda:0")
    say("started", text, 0, node="n1", device="cuda:3")
    say("progress", targets, 1, share=0.5)
    say("waiting", text, NO_SLOT, text="another sweep is making it")
    both = drawn(board, 120)
    say("made", text, 0)
    say("helping", targets, 0, node="n1", device="cuda:3")
    helped = drawn(board, 120)
    say("helped", targets, 0)
    one = drawn(board, 120)

    assert both[0].split() == ["stage", "trial", "node", "device", "progress", "left"]
    assert both[1].split()[0] == "text"
    assert both[1].split()[5:8] == ["n1", "cuda:3", "░" * 20]
    assert both[2].split()[0] == "targets"
    assert "n2" in both[2]
    assert " 50% " in both[2]
    assert both[3].startswith("0/11 stages, about ")
    assert helped[1].split()[:2] == ["helps", "targets"]
    assert helped[3].startswith("1/11 stages, about ")
    assert len(one) == 2
    assert one[1].split()[0] == "targets"


def test_table_before_the_plan_is_known_says_that_it_starts() -> None:
    board, _ = board_of(100)

    assert drawn(board, 100)[1].split() == ["starting", "0/0", "0"]


def test_trouble_is_printed_above_the_table_and_stays(plan: Plan, store: Store) -> None:
    board, above = board_of(100)
    board.planned(plan, store)
    stage = next(s for s in plan.stages.values() if s.kind == "student")

    tell(board, "failed", stage, "[red]no[/red]")
    tell(board, "made", stage, "1.0 s")

    said = f"failed student {stage.fingerprint[:12]} (learning_rate=0.001,seed=0): [red]no[/red]\n"
    assert above.getvalue() == said
    assert drawn(board, 100)[1].split()[:2] == ["1/11", "1"]


def test_failures_of_one_reason_are_all_printed_and_a_pruned_one_once(
    plan: Plan, store: Store
) -> None:
    board, said = board_of(100)
    board.planned(plan, store)
    first, second = list(plan.stages.values())[:2]

    for note in ("failed", "pruned"):
        tell(board, note, first, f"for one reason: {note}")
        tell(board, note, second, f"for one reason: {note}")

    assert said.getvalue().count("for one reason: failed") == 2
    assert said.getvalue().count("for one reason: pruned") == 1


def test_table_says_that_it_stops(plan: Plan, store: Store) -> None:
    board, _ = board_of(100)
    board.planned(plan, store)

    board._stopper.event.set()

    assert drawn(board, 100)[-1].strip() == STOPPING


@pytest.fixture
def computing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Return a plan of stages that take longer to compute than to start."""
    monkeypatch.chdir(tmp_path)
    text = TINY.replace("count: 2,", "count: 2000,").replace("count: 2}", "count: 4000}")
    return make_plan(read_spec(Path(write_spec(text))).points, [0], None)


def test_time_left_is_as_planned_then_follows_the_work_done_and_leaves_out_the_start(
    computing: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("spar_bench.session.tally.time.monotonic", lambda: now[0])
    monkeypatch.setattr("spar_bench.session.tally.assumed_speed", lambda *_: Speed("x", 10.0, 10.0))
    tally, stages = Tally(), list(computing.stages.values())
    tally.planned(computing, store)
    images = next(stage for stage in stages if stage.kind == "images")
    student = next(stage for stage in stages if stage.kind == "student")

    tell(tally, "started", images)
    now[0] += 600  # imports
    tell(tally, "made", images)
    after_start = tally.seconds_left()
    tell(tally, "started", student)
    tell(tally, "progress", student)
    took = student.estimate(computing.stages).gflops / 10.0 + STAGE_S
    now[0] += took  # half as fast as planned
    tell(tally, "progress", student, share=0.5)
    halfway = tally.seconds_left()
    for stage in stages:
        tell(tally, "made", stage)
    at_end = tally.seconds_left()

    others = sum(tally._work.values()) - took - tally._work[images.batch_key]
    assert after_start == pytest.approx(took + others)
    pace = (PLAN_S + took) / (PLAN_S + took / 2)
    assert halfway == pytest.approx(pace * (took / 2 + others))
    assert at_end == pytest.approx(0)


def test_students_left_of_those_that_go_together_are_work_ahead(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = TINY.replace("learning_rate: [1.0e-3]", "learning_rate: [1.0e-3, 2.0e-3]")
    plan = make_plan(read_spec(Path(write_spec(text))).points, [0], None)
    first, second = (one for one in plan.stages.values() if one.kind == "student")
    assert first.batch_key == second.batch_key
    look = Collector.state

    def state(self: Collector, fingerprint: str) -> State:
        return State("finished") if fingerprint == first.fingerprint else look(self, fingerprint)

    monkeypatch.setattr(Collector, "state", state)
    tally = Tally()
    tally.planned(plan, store)

    before = tally.seconds_left()
    tell(tally, "started", second)
    begun = tally.seconds_left()
    tell(tally, "made", second)

    assert before == begun == sum(tally._work.values())
    assert tally.seconds_left() == pytest.approx(before - tally._work[second.batch_key])


def test_stage_that_failed_for_good_is_no_work_ahead(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = make_plan(read_spec(Path(write_spec(DIVERGING))).points, [0], None)
    failed = next(s for s in plan.stages.values() if s.kind == "student")
    with store.lock([failed.fingerprint], on_wait=print, poll=lambda: None):
        store.fail(failed, "diverged", outcome="failed", final=True)
    tally = Tally()

    tally.planned(plan, store)

    blocked = [s for s in plan.stages.values() if failed.fingerprint in s.inputs.values()]
    assert not {failed.fingerprint, blocked[0].fingerprint} & tally._work.keys()
    assert len(tally._work) == 6


def test_lines_tell_stage_trials_and_counts(
    plan: Plan, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spar_bench.cli.progress.LINE_EVERY_S", -1.0)
    lines, stage = Lines(), next(s for s in plan.stages.values() if s.kind == "images")
    lines.planned(plan, store)

    tell(lines, "started", stage, "")
    tell(lines, "progress", stage, share=0.5)
    tell(lines, "failed", stage, "no room")

    trial, name = "(learning_rate=0.001,seed=0)", stage.fingerprint[:12]
    said = re.sub(r", about [^]]* left", "", capsys.readouterr().err)
    started, halfway, failed = said.splitlines()
    assert started == f"started images {name} {trial} [0/11 stages]"
    assert halfway == f" 50% images {name} [0/11 stages]"
    assert failed == f"failed images {name} {trial}: no room [0/11 stages, 1 failed]"


def test_stage_that_a_failed_one_blocks_is_counted_apart(
    plan: Plan, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    student = next(s for s in plan.stages.values() if s.kind == "student")
    needs = [s for s in plan.stages.values() if student.fingerprint in s.inputs.values()]
    lines, (board, _) = Lines(), board_of(100)
    for shown in (lines, board):
        shown.planned(plan, store)

        tell(shown, "failed", student, "diverged")
        tell(shown, "blocked", needs[0], "a stage that it needs was not made: diverged")

    counts = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"\[0/11 stages, 1 failed, 1 blocked, about \d+ s left\]", counts)
    assert drawn(board, 100)[1].split()[:2] == ["0/11", "1"]
