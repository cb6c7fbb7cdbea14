"""The order in which stages go to a backend, and when each is reported, with toy stages."""

import time
from itertools import product
from pathlib import Path

import pytest

from spar_bench.engine.events import Emit, Event
from spar_bench.engine.scheduler import Scheduler
from spar_bench.engine.workplan import WorkPlan
from spar_bench.plan.trials import Plan
from spar_bench.stages.base import Estimate, Stage
from spar_bench.store import Store
from tests.toy import Stage as Toy
from tests.toy import Summary, toy


class Slots:
    """A backend with slots; of the stages in them, the one submitted last ends first."""

    def __init__(self, n_slots: int, journal: list[str], *, fails: frozenset[str] = frozenset()):
        self.n_slots, self.journal, self._fails = n_slots, journal, fails
        self._open: list[tuple[Stage, Emit]] = []

    def use(self, plan: WorkPlan) -> None:
        """Do nothing."""

    def room(self, stage: Stage) -> int:
        return self.n_slots - len(self._open)

    def submit(self, batch: list[Stage], emit: Emit) -> None:
        for stage in batch:
            self.journal.append(f"start {name(stage)}")
            self._open.append((stage, emit))

    def help(self, batch: list[Stage], emit: Emit) -> None:
        for stage in batch:
            self.journal.append(f"help {name(stage)}")
            emit(Event(kind="helped", fingerprint=stage.fingerprint))

    def wait(self) -> None:
        if not self._open:
            return
        stage, emit = self._open.pop()
        kind = "failed" if name(stage) in self._fails else "made"
        emit(Event.model_validate({"kind": kind, "fingerprint": stage.fingerprint, "text": "-"}))

    def close(self) -> None:
        """Do nothing."""


def name(stage: Stage) -> str:
    """Return the seed of a toy."""
    return str(stage.model_dump()["settings"]["seed"])


def plan_of(*inputs: tuple[int, ...]) -> tuple[Plan, list[str]]:
    """Return a plan of toys 0, 1, ..., each made from those of these numbers."""
    plan, keys = Plan(), list[str]()
    for seed, needed in enumerate(inputs):
        keys.append(plan.add(toy({str(i): keys[i] for i in needed}, seed=seed)))
    return plan, keys


def run(
    plan: Plan, asked: list[str], folder: Path, n_slots: int, fails: frozenset[str] = frozenset()
) -> tuple[list[str], Scheduler]:
    """Make stages in a new store; return what started and ended, in order."""
    journal: list[str] = []
    making = Scheduler(
        plan,
        Store(folder),
        Slots(n_slots, journal, fails=fails),
        set(),
        notify=lambda event: journal.append(f"{event.kind} {name(plan.stages[event.fingerprint])}"),
    )
    making.make(asked, ended=lambda key: journal.append(f"ended {name(plan.stages[key])}"))
    return journal, making


def test_stage_is_reported_before_the_next_one_starts(tmp_path: Path) -> None:
    plan, keys = plan_of((), (0,), (), (2,))

    journal, _ = run(plan, [keys[1], keys[3]], tmp_path / "store", n_slots=1)

    assert journal == [
        *("start 0", "made 0", "start 1", "made 1", "ended 1"),
        *("start 2", "made 2", "start 3", "made 3", "ended 3"),
    ]


def test_free_slot_takes_the_first_stage_of_the_plan_whose_inputs_are_made(tmp_path: Path) -> None:
    plan, keys = plan_of((), (), (0,), (1,), (2, 3))

    journal, _ = run(plan, [keys[4]], tmp_path / "store", n_slots=2)

    # 0 and 1 run; 1 ends first, which frees 3; then 3 ends, and 2 waits for 0.
    assert journal == [
        *("start 0", "start 1", "made 1", "start 3", "made 3", "made 0"),
        *("start 2", "made 2", "start 4", "made 4", "ended 4"),
    ]


def test_stages_made_from_a_failed_one_are_blocked_and_others_are_made(tmp_path: Path) -> None:
    plan, keys = plan_of((), (0,), (1,), ())

    journal, making = run(plan, keys, tmp_path / "store", n_slots=1, fails=frozenset("0"))

    assert [making.outcomes[key] for key in keys] == ["failed", "blocked", "blocked", "made"]
    assert making.reasons[keys[2]].count("-") == 1
    assert [line for line in journal if line.startswith("start")] == ["start 0", "start 3"]


def test_what_is_settled_before_is_reported_at_once(tmp_path: Path) -> None:
    plan, keys = plan_of((), (0,))
    journal, making = run(plan, [keys[0]], tmp_path / "store", n_slots=1)
    ended: list[str] = []

    making.make(keys[:1], ended=ended.append)

    assert ended == keys[:1]
    assert journal == ["start 0", "made 0", "ended 0"]


def test_finished_stage_is_not_made_again(tmp_path: Path) -> None:
    plan, keys = plan_of((), (0,))
    store = Store(tmp_path / "store")
    with store.lock([keys[1]], on_wait=lambda _: None, poll=lambda: None):
        store.finish(plan.stages[keys[1]], summary=Summary(), made={})

    journal, making = run(plan, [keys[1]], tmp_path / "store", n_slots=1)

    assert journal == ["ended 1"]
    assert making.outcomes == {keys[1]: "found"}


class Leaving(Slots):
    """Slots of which the first finds that another process has its stage, for a while."""

    def wait(self) -> None:
        if self._open and name(self._open[-1][0]) == "0" and self.journal.count("start 0") == 1:
            stage, emit = self._open.pop()
            emit(Event(kind="left", fingerprint=stage.fingerprint, text="-"))
        else:
            super().wait()


def test_stage_that_another_process_has_is_left_and_asked_for_again(tmp_path: Path) -> None:
    plan, keys = plan_of((), (0,), (), ())
    journal: list[str] = []
    now = iter(range(10**6))

    making = Scheduler(
        plan,
        Store(tmp_path),
        Leaving(1, journal),
        set(),
        notify=lambda event: journal.append(f"{event.kind} {name(plan.stages[event.fingerprint])}"),
        clock=lambda: float(next(now)),
    )
    making.make(keys)

    assert set(making.outcomes.values()) == {"made"}
    assert journal == [
        *("start 0", "left 0", "start 2", "made 2", "start 3", "made 3"),
        *("start 0", "made 0", "start 1", "made 1"),
    ]


@pytest.mark.parametrize("n_slots", [1, 500])
def test_time_is_linear_in_the_plan(tmp_path: Path, n_slots: int) -> None:
    seconds = dict[int, float]()
    for attempt, n_stages in product(range(2), (1000, 4000)):
        plan, keys = plan_of(*((index - 1,) if index % 2 else () for index in range(n_stages)))
        begun = time.process_time()
        journal, _ = run(plan, keys, tmp_path / f"{attempt}-{n_stages}", n_slots)
        took = time.process_time() - begun
        seconds[n_stages] = min(took, seconds.get(n_stages, took))
        assert len(journal) == 3 * n_stages

    # Four times the stages; a scan of all that wait, for each event, takes sixteen times as long.
    assert seconds[4000] < 9 * seconds[1000]


@pytest.mark.parametrize(
    ("n_slots", "divisible", "sizes"),
    [(1, True, [5]), (2, True, [3, 2]), (3, True, [2, 2, 1]), (9, True, [1] * 5), (3, False, [5])],
)
def test_what_may_be_divided_is_divided_evenly_over_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_slots: int, divisible: bool, sizes: list[int]
) -> None:
    monkeypatch.setattr(Toy, "batch_key", "one")
    monkeypatch.setattr(Toy, "divisible", divisible)
    plan, keys = plan_of(*[()] * 5)
    found = list[int]()

    class Counting(Slots):
        def room(self, stage: Stage) -> int:
            return self.n_slots - len(found)

        def submit(self, batch: list[Stage], emit: Emit) -> None:
            found.append(len(batch))
            super().submit(batch, emit)

    making = Scheduler(
        plan, Store(tmp_path), Counting(n_slots, []), set(keys), notify=lambda _: None
    )
    making.make(keys)

    assert found == sizes
    assert set(making.outcomes.values()) == {"made"}


@pytest.mark.parametrize(
    ("others", "gflops", "starts"),
    [
        ([0], 1.0, ["0", "1 2 3", "4", "5"]),  # the slot of 0 will have nothing else to do
        ([0, 5], 1.0, ["0", "1 2", "3", "4", "5"]),  # ... or little
        ([0, 5], 10.0, ["0", "1 2 3 4", "5"]),
    ],
)
def test_what_may_be_divided_is_kept_for_slots_that_have_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    others: list[int],
    gflops: float,
    starts: list[str],
) -> None:
    plan, keys = plan_of(*[()] * 6)
    alone = {keys[place] for place in others}
    monkeypatch.setattr(
        Toy,
        "estimate",
        lambda one, _: Estimate(gflops if one.fingerprint in alone else 1.0, 0),
    )
    monkeypatch.setattr(
        Toy,
        "batch_key",
        property(lambda one: one.fingerprint if one.fingerprint in alone else "alike"),
    )
    monkeypatch.setattr(Toy, "divisible", True)
    found = list[str]()

    class Noting(Slots):
        def submit(self, batch: list[Stage], emit: Emit) -> None:
            found.append(" ".join(map(name, batch)))

            def end_all(event: Event) -> None:
                for stage in batch:
                    emit(event.model_copy(update={"fingerprint": stage.fingerprint}))

            self._open.append((batch[0], end_all))

    backend = Noting(2, [])
    Scheduler(plan, Store(tmp_path), backend, set(keys), notify=lambda _: None).make(keys)

    assert found == starts
