"""Simulated schedules: against schedules laid out by hand, and a real one on two workers."""

import time
from pathlib import Path

import pytest

from spar_bench.engine.simulation import Simulated, simulate
from spar_bench.plan.devices import STARTUP_S, Speed, assumed_speed
from spar_bench.plan.trials import Plan
from spar_bench.session.options import Options
from spar_bench.session.planning import plan_sweep
from spar_bench.session.sweep import sweep
from spar_bench.stages.base import Estimate
from spar_bench.store import Store
from tests.engine.test_scheduler import name, plan_of
from tests.small import HEAD, spar_bench, write_spec
from tests.toy import Stage as Toy

SECONDS = [9.0, 99.0, 19.0, 49.0]
"""Of toys 0, 1, ...: with a second each besides its arithmetic, 10, 100, 20 and 50."""


@pytest.fixture(autouse=True)
def _toys_take_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Toy,
        "estimate",
        lambda one, _: Estimate(SECONDS[int(name(one))], 100 * (1 + int(name(one)))),
    )


def simulated(plan: Plan, n_workers: int, *, to_do: set[str] | None = None) -> Simulated:
    """Simulate a plan at one GFLOP/s."""
    asked = set(plan.stages) if to_do is None else to_do
    return simulate(plan, asked, Speed("x", 1.0, 1.0), n_workers)


def test_one_worker_takes_the_sum_and_is_never_idle() -> None:
    plan, _ = plan_of((), (), (0,), (1, 2))

    found = simulated(plan, 1)

    assert found.seconds == pytest.approx(STARTUP_S + 10 + 100 + 20 + 50)
    assert found.idle_share == pytest.approx(0)
    assert found.chain_s == pytest.approx(STARTUP_S + 100 + 50)
    assert found.bytes_written == 100 + 200 + 300 + 400
    assert found.bytes_read == 100 + (200 + 300)


@pytest.mark.parametrize("n_workers", [2, 8])
def test_two_branches_go_side_by_side_and_the_last_waits_for_both(n_workers: int) -> None:
    plan, _ = plan_of((), (), (0,), (1, 2))

    found = simulated(plan, n_workers)

    # One worker makes 0 and 2, the other 1 and then 3.
    busy_s = 2 * STARTUP_S + 10 + 20 + 100 + 50
    assert found.seconds == found.chain_s == pytest.approx(STARTUP_S + 100 + 50)
    assert found.idle_share == pytest.approx(1 - busy_s / (n_workers * found.seconds))


def test_only_what_is_to_do_takes_time() -> None:
    plan, keys = plan_of((), (), (0,), (1, 2))

    assert simulated(plan, 2, to_do={keys[3]}).seconds == pytest.approx(STARTUP_S + 50)
    assert simulated(plan, 2, to_do=set()).seconds == 0


def test_what_takes_the_machine_waits_for_all_and_comes_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, keys = plan_of((), (), ())
    plan.latency = keys[2]
    monkeypatch.setattr(Toy, "alone", property(lambda one: one.fingerprint == keys[2]))

    found = simulated(plan, 3)

    assert found.seconds == pytest.approx(STARTUP_S + 100 + 20)
    assert found.chain_s == found.seconds


def test_idle_workers_help_with_what_can_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = plan_of((), ())
    monkeypatch.setattr(Toy, "helper", "tests.toy:help")

    alone, four = simulated(plan, 1), simulated(plan, 4)

    assert alone.seconds == pytest.approx(STARTUP_S + 110)
    # Four workers with their start-ups, but for the moment until they know that it is worth it.
    least = STARTUP_S + (110) / 4
    assert least < four.seconds < least + 25
    assert four.chain_s == pytest.approx(STARTUP_S + 100 / 64)


def test_hundred_thousand_stages_are_simulated_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "estimate", lambda one, _: Estimate(1.0, 1))
    seconds = {}
    for n_stages in (2_500, 10_000):
        plan, _ = plan_of(*((index - 1,) if index % 2 else () for index in range(n_stages)))
        begun = time.process_time()
        assert simulated(plan, 64).seconds >= STARTUP_S + 2 * n_stages / 64
        seconds[n_stages] = time.process_time() - begun

    assert seconds[10_000] < 9 * seconds[2_500]  # four times the stages


def test_plan_prints_a_line_for_each_number_of_workers(here: Path) -> None:
    spec = write_spec(HEAD + "measure: {latency: false}\n")

    said = spar_bench("plan", spec, "--jobs", "1,8").stdout.split("\n\n")[-1].splitlines()
    refused = spar_bench("plan", spec, "--jobs", "1,x", exits=2).stderr

    assert said[0].split() == ["workers", "time", "longest", "chain", "idle", "written", "read"]
    assert [line.split()[0] for line in said[1:]] == ["1", "8"]
    assert "must be whole numbers from 1, separated by commas, but got '1,x'" in refused


@pytest.mark.slow
def test_simulated_schedule_is_near_a_real_one_on_two_workers(here: Path) -> None:
    text = HEAD.replace("count: 2,", "count: 2000,").replace("count: 2}", "count: 1500}")
    text += (
        "measure: {latency: false}\nsweep:\n"
        "  - grid: {student.learning_rate: [1.0e-3, 2.0e-3]}\n"
        "    set: {evaluate.methods: [student]}\n"
        "  - grid: {teacher.stride_px: [24, 20]}\n    set: {evaluate.methods: [teacher]}\n"
    )
    spec = write_spec(text)
    view = plan_sweep(spec, store="real")
    to_do = {planned.stage.fingerprint for planned in view.missing}

    begun = time.monotonic()
    sweep(spec, Options(store="real", jobs=2, threads=1))
    real_s = time.monotonic() - begun

    speed = assumed_speed(Store(Path("real")).finished(), None)
    assert simulate(view.plan, to_do, speed, 2).seconds == pytest.approx(real_s, rel=0.2)
