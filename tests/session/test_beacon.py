"""What other terminals see of a sweep: while it runs, and not once it is dead."""

import os
import time
from pathlib import Path

import pytest

from spar_bench.conflicts import read_spec
from spar_bench.engine.events import Event
from spar_bench.leases import Host
from spar_bench.plan.making import make_plan
from spar_bench.plan.trials import Plan
from spar_bench.session import beacon
from spar_bench.session.beacon import Beacon, running
from spar_bench.session.tally import Tally
from spar_bench.store import Store
from tests.small import TINY, spar_bench, write_spec


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beacon, "EVERY_S", -1.0)


@pytest.fixture
def plan(here: Path) -> Plan:
    """Return the plan of three trials."""
    return make_plan(read_spec(Path(write_spec(TINY))).points, [0], None)


def shown_by(store: Store, plan: Plan) -> Beacon:
    """Show a sweep of two workers, one of which helps the other."""
    light, tally = Beacon("tiny"), Tally()
    tally.planned(plan, store)
    light.begin(store)
    targets = next(stage for stage in plan.stages.values() if stage.kind == "targets")
    key = targets.fingerprint
    for event in (
        Event(kind="started", fingerprint=key, slot=0, node="n1", device="cuda:3"),
        Event(kind="progress", fingerprint=key, slot=0, share=0.25),
        Event(kind="helping", fingerprint=key, slot=1, node="n2", device="cuda:0"),
    ):
        tally.note(event, targets)
        light.show(tally)
    return light


def test_status_shows_what_each_worker_does_until_the_sweep_ends(plan: Plan) -> None:
    store = Store(Path(".spar_bench"))
    with store.in_use(on_wait=lambda _: None, poll=lambda: None):
        light = shown_by(store, plan)

        said = spar_bench("status").stdout.splitlines()

        light.end()
    after = spar_bench("status").stdout.splitlines()

    assert said[0].startswith("tiny, swept by process ")
    assert "0 of 11 stages, about " in said[0]
    trial = "learning_rate=0.001,seed=0"
    assert said[1].split() == ["stage", "node", "device", "progress", "left", "trial"]
    made, helped = said[2].split(), said[3].split()
    assert (made[:4], made[-1]) == (["targets", "n1", "cuda:3", "25%"], trial)
    assert helped == ["helps", "targets", "n2", "cuda:0", trial]
    assert after[0].split()[0] == "experiment"
    assert list((store.root / "progress").iterdir()) == []


def test_what_a_dead_sweep_has_left_is_not_shown_and_deleted_by_the_next(plan: Plan) -> None:
    dead, alive = Store(Path(".spar_bench")), Store(Path(".spar_bench"))
    shown_by(dead, plan)  # its lease is gone

    assert running(alive) == []
    with alive.in_use(on_wait=lambda _: None, poll=lambda: None):
        shown_by(alive, plan)
        [one] = running(alive)

    assert (one.n_done, one.n_stages, len(one.work)) == (0, 11, 2)
    assert [path.stem for path in (alive.root / "progress").iterdir()] == [alive.leases.owner]


def test_store_that_cannot_be_written_stops_no_sweep(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(Path(".spar_bench"))
    (store.root / "progress").write_text("a file in the way")

    light = shown_by(store, plan)
    light.end()

    assert running(store) == []


def test_sweep_leaves_no_progress_behind(here: Path) -> None:
    spar_bench("sweep", write_spec(TINY))

    assert list(Path(".spar_bench/progress").iterdir()) == []


def test_sweep_that_was_killed_on_another_host_is_shown_no_more_after_minutes(plan: Plan) -> None:
    there, here = (
        Store(Path(".spar_bench"), host=Host("there", "kernel")),
        Store(Path(".spar_bench")),
    )
    with there.in_use(on_wait=lambda _: None, poll=lambda: None):
        shown_by(there, plan)
        alive = running(here)
        lease = here.root / "leases" / f"use-{there.leases.owner}"
        os.utime(lease, (time.time() - 600, time.time() - 600))
        dead = running(here)

    assert len(alive) == 1
    assert dead == []
