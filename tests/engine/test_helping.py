"""What a slot does that has nothing to make: it helps, here or elsewhere, or leaves it."""

import threading
import time
from pathlib import Path

import pytest

from spar_bench.engine import helping
from spar_bench.engine.events import Emit, Event
from spar_bench.engine.scheduler import Scheduler
from spar_bench.lease_files import Lease
from spar_bench.plan.trials import Plan
from spar_bench.stages.base import Stage
from spar_bench.store import Store
from tests.engine.test_scheduler import Slots, name, plan_of
from tests.toy import Stage as Toy
from tests.toy import Summary


@pytest.fixture(autouse=True)
def _help_is_worth_it_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helping, "WORTH_S", 0.03)
    monkeypatch.setattr(Toy, "helper", "tests.toy:help")


class Slow(Slots):
    """Slots whose stages end at the n-th wait, and tell how far they are until then."""

    def __init__(self, n_slots: int, journal: list[str], *, n_waits: int, share: float) -> None:
        super().__init__(n_slots, journal)
        self._n_left, self._share = n_waits, share

    def wait(self) -> None:
        time.sleep(0.02)
        self._n_left -= 1
        if self._n_left > 0:
            stage, emit = self._open[-1]
            emit(Event(kind="progress", fingerprint=stage.fingerprint, share=self._share))
        else:
            super().wait()


def making_of(plan: Plan, store: Store, backend: Slots) -> Scheduler:
    """Return what schedules a plan of toys, and journals what it is told."""
    return Scheduler(
        plan,
        store,
        backend,
        set(plan.stages),
        notify=lambda event: backend.journal.append(
            f"{event.kind} {name(plan.stages[event.fingerprint])}"
        ),
    )


@pytest.mark.parametrize(("n_slots", "share", "n_helps"), [(2, 0.1, 1), (1, 0.1, 0), (2, 0.99, 0)])
def test_idle_slot_helps_once_with_what_takes_long_yet(
    tmp_path: Path, n_slots: int, share: float, n_helps: int
) -> None:
    plan, keys = plan_of((), (0,))
    backend = Slow(n_slots, [], n_waits=8, share=share)

    making_of(plan, Store(tmp_path), backend).make([keys[1]])

    assert backend.journal.count("help 0") == n_helps  # after it found no part free, no more
    assert [line for line in backend.journal if line.startswith("made")] == ["made 0", "made 1"]


def test_kind_without_a_helper_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "helper", "")
    plan, keys = plan_of(())
    backend = Slow(2, [], n_waits=8, share=0.1)

    making_of(plan, Store(tmp_path), backend).make(keys)

    assert [line for line in backend.journal if line.startswith("help")] == []


def test_scheduler_ends_once_its_helpers_have(tmp_path: Path) -> None:
    plan, keys = plan_of(())
    late = list[tuple[Stage, Emit]]()

    class Lingering(Slow):
        def room(self, stage: Stage) -> int:
            return super().room(stage) - len(late)

        def help(self, batch: list[Stage], emit: Emit) -> None:
            late.extend((stage, emit) for stage in batch)

        def wait(self) -> None:
            if self._open:
                super().wait()
            else:
                stage, emit = late.pop()
                self.journal.append("its helper ended")
                emit(Event(kind="helped", fingerprint=stage.fingerprint))

    backend = Lingering(2, [], n_waits=8, share=0.1)

    making_of(plan, Store(tmp_path), backend).make(keys)

    assert backend.journal[-3:] == ["made 0", "its helper ended", "helped 0"]


def test_what_another_sweep_makes_is_left_to_it_helped_and_found(tmp_path: Path) -> None:
    plan, keys = plan_of((), (), (0, 1))
    backend, other = Slots(1, []), Store(tmp_path)
    is_held, may_end = threading.Event(), threading.Event()

    def make_first() -> None:
        with other.lock([keys[0]], on_wait=lambda _: None, poll=lambda: None):
            is_held.set()
            may_end.wait(20)
            other.finish(plan.stages[keys[0]], summary=Summary(), made={})

    thread = threading.Thread(target=make_first)
    thread.start()
    is_held.wait(20)
    journal, note = backend.journal, backend.help

    def help_then_let_it_end(batch: list[Stage], emit: Emit) -> None:
        note(batch, emit)
        may_end.set()

    backend.help = help_then_let_it_end  # type: ignore[method-assign]

    making = making_of(plan, Store(tmp_path), backend)
    making.make([keys[2]])
    thread.join()

    assert journal == [
        *("waiting 0", "start 1", "made 1"),  # the second first, since the first is being made
        *("help 0", "helped 0", "found 0", "start 2", "made 2"),
    ]
    assert making.outcomes[keys[0]] == "found"


def test_what_a_sweep_that_died_was_making_is_made(tmp_path: Path) -> None:
    plan, keys = plan_of(())
    dead, backend = Store(tmp_path, lease_s=0.3), Slots(1, [])
    holding = dead.lock(keys, on_wait=lambda _: None, poll=lambda: None)
    holding.__enter__()
    for lease in dead.leases._held.values():
        assert isinstance(lease, Lease)
        lease.renew = lambda: None  # type: ignore[method-assign]

    making = making_of(plan, Store(tmp_path), backend)
    making.make(keys)

    assert backend.journal[-2:] == ["start 0", "made 0"]
    assert making.outcomes == {keys[0]: "made"}


def test_lease_that_is_given_back_between_two_looks_is_no_trouble(tmp_path: Path) -> None:
    class Flickering(Store):
        n_looks = 0

        def is_being_made(self, fingerprint: str) -> bool:
            self.n_looks += 1
            return self.n_looks == 1

    plan, keys = plan_of(())
    backend = Slots(1, [])

    making_of(plan, Flickering(tmp_path), backend).make(keys)

    assert backend.journal == ["waiting 0", "start 0", "made 0"]
