"""Ray: the same files as one process makes, whoever is killed; on the loopback, and gone after."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from spar_bench.backends import ray as backend
from spar_bench.backends._ray_cluster import passed_on
from spar_bench.engine.scheduler import Scheduler
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.plan.trials import Plan
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
from tests.run.tiny import Notes, of_kind
from tests.small import UNTIMED, one_line, spar_bench, workers_on, write_spec

__all__ = ["clip", "photographs", "plan", "store", "undisturbed", "whole"]


pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")

NOBODY = "127.0.0.1:9"
"""The discard port, on which nobody listens."""


def on_ray(
    plan: Plan, store: Store, **further: Any
) -> AbstractContextManager[tuple[Scheduler, Notes]]:
    """Schedule a plan over workers with a CPU each."""
    return two_workers(backend.Backend, plan, store, on="ray", devices=["auto", "auto"], **further)


def processes(pattern: str) -> list[int]:
    """Return the processes whose command line has a text, but for this one."""
    listed = subprocess.run(["ps", "-ewwo", "pid=,args="], capture_output=True, text=True).stdout
    found = [line.split(maxsplit=1) for line in listed.splitlines()]
    return [int(pid) for pid, line in found if pattern in line and int(pid) != os.getpid()]


def gone_within(pattern: str, seconds: float) -> bool:
    """Wait for processes to end; return whether they have."""
    ends_at = time.monotonic() + seconds
    while processes(pattern) and time.monotonic() < ends_at:
        time.sleep(0.2)
    return not processes(pattern)


def test_workers_make_what_one_process_makes_and_leave_nothing(
    plan: Plan, store: Store, undisturbed: dict[str, Any]
) -> None:
    handler = signal.getsignal(signal.SIGTERM)

    with on_ray(plan, store) as (making, notes):
        assert making.make(plan.stages)
        n_workers = len(workers_on(str(store.root)))
        at = listening("ray")
        assert isinstance(making.backend, backend.Backend)
        folder = making.backend.cluster._folder

    assert n_workers == 2
    assert set(making.outcomes.values()) == {"made"}
    assert sorted(notes.kinds("made")) == sorted(stage.kind for stage in plan.stages.values())
    assert contents(store, plan) == undisturbed
    addresses = {address for each in at.values() for address in each}
    assert addresses == {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1
    assert signal.getsignal(signal.SIGTERM) is handler
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert workers_on(str(store.root)) == []
    assert folder is not None
    assert gone_within(folder, 10)
    assert not Path(folder).exists()


def test_sweep_on_ray_has_the_rows_of_one_in_this_process(here: Path) -> None:
    write_spec(UNTIMED)
    spar_bench("sweep", "experiments/tiny.yaml")
    expected = Path(".spar_bench/results/tiny/results.json").read_text()

    spar_bench("sweep", "experiments/tiny.yaml", "--on", "ray", "--store", "elsewhere")

    found = Path("elsewhere/results/tiny/results.json").read_text()
    assert numbers(found) == numbers(expected)


def numbers(results: str) -> list[tuple[Any, ...]]:
    return [(row["trial"], row["method"], row["miou"]) for row in json.loads(results)["rows"]]


@pytest.mark.slow
def test_student_trained_by_two_workers_is_made_and_its_group_given_back(
    plan: Plan, store: Store, whole: Store
) -> None:
    [student] = of_kind(plan, "student")
    with on_ray(plan, store, processes=2) as (making, notes):
        at = on_progress(making, notes, student, lambda: listening("spar_bench"))
        making.make(plan.stages)

    assert set(making.outcomes.values()) == {"made"}
    assert {address for each in at.values() for address in each} == {"0100007F"}
    require_by_two(student, store, whole)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [" work ", "ray::Slot"])
def test_worker_or_actor_that_is_killed_is_replaced_and_its_work_resumed(
    plan: Plan, store: Store, undisturbed: dict[str, Any], pattern: str
) -> None:
    def found() -> list[int]:
        return workers_on(str(store.root)) if "work" in pattern else processes(pattern)

    with on_ray(plan, store) as (making, notes):
        killed = kill_once(making, notes, found)
        making.make(plan.stages)

    assert killed
    require_each_made_once(making, notes)
    assert contents(store, plan) == undisturbed


@pytest.mark.slow
def test_nothing_outlives_a_sweep_that_is_killed(plan: Plan, store: Store, tmp_path: Path) -> None:
    path = WorkPlan(plan.stages, Retries()).save(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path), str(store.root)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    folder = parent.stdout.readline().strip()
    assert processes(folder)
    assert workers_on(str(store.root))

    parent.kill()
    parent.communicate()

    assert gone_within(str(store.root), 30)
    assert gone_within(folder, 30)


PARENT = """
import sys, time
from pathlib import Path
from spar_bench.backends.base import Setup
from spar_bench.backends.ray import Backend
from spar_bench.engine.workplan import read_work_plan
from spar_bench.store import Store
path, root = sys.argv[1:]
plan = read_work_plan(Path(path))
made = Backend(Setup(store=Store(Path(root)), devices=["auto"], threads=1, workers=None,
    make=lambda *_: None, help=lambda *_: None, check=lambda: None, prune=lambda *_: "", on="ray"))
made.use(plan)
first = next(iter(plan.stages.values()))
begun = []
made.submit([first], begun.append)
while not begun:
    made.wait()
print(made.cluster._folder, flush=True)
time.sleep(120)
"""


def test_cluster_that_does_not_answer_is_refused(here: Path) -> None:
    write_spec(UNTIMED)

    for address in (NOBODY, f"ray://{NOBODY}", "nowhere"):
        refused = one_line(spar_bench("sweep", "experiments/tiny.yaml", "--on", address, exits=2))
        assert refused.startswith(f"--on {address}: must be a Ray cluster that answers, ")


def test_variables_are_passed_on_but_not_what_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SPAR_BENCH_WEIGHTS": "/w",
        "SPAR_BENCH_STUDIES": "postgresql://u:s3cret@h/d",
        "HF_TOKEN": "s3cret",
        "HF_HOME": "/hub",
        "NCCL_SOCKET_IFNAME": "ib0",
        "LANG": "C",
    }.items():
        monkeypatch.setenv(name, value)

    passed = passed_on()

    assert passed.keys() >= {"SPAR_BENCH_WEIGHTS", "HF_HOME", "NCCL_SOCKET_IFNAME"}
    assert passed.keys().isdisjoint({"SPAR_BENCH_STUDIES", "HF_TOKEN", "LANG"})


def test_missing_ray_is_refused_with_the_way_out(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spec(UNTIMED)
    monkeypatch.setitem(sys.modules, "ray", None)

    refused = one_line(spar_bench("sweep", "experiments/tiny.yaml", "--on", "ray", exits=2))

    assert refused == ("--on: must have Ray, but it is not installed; pip install 'ray>=2.60'")


def test_device_is_ray_s_to_say(here: Path) -> None:
    write_spec(UNTIMED)

    refused = one_line(
        spar_bench("sweep", "experiments/tiny.yaml", "--on", "ray", "--device", "cpu", exits=2)
    )

    assert refused.startswith("--device, --devices: must be left out with --on")
