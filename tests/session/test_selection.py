"""Which arms a sweep of some trials times."""

from pathlib import Path

import pytest

from spar_bench.plan.trials import Plan
from spar_bench.run.context import ignore
from spar_bench.session.selection import (
    select_trials,
    stages_after_trials,
    stages_of_trials,
    time_only,
)
from spar_bench.stages import latency
from spar_bench.store import Store
from tests.run.tiny import plan_of, settings


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "store")


MEASURE = {"latency": True, "seconds": 0.01, "image_hw": [[48, 64]]}


def planned(clip: Path, photographs: Path) -> Plan:
    """Return a plan of two teachers, each timed at two sizes."""
    return plan_of(
        *(
            settings(clip, photographs, measure=MEASURE, teacher__stride_px=stride,
                     evaluate__methods=["teacher"])
            for stride in (8, 16)
        )
    )  # fmt: skip


def test_some_trials_are_timed_without_the_others(
    clip: Path, photographs: Path, store: Store
) -> None:
    plan = planned(clip, photographs)
    whole = plan.latency
    trials = select_trials(plan.trials, "g1")

    time_only(plan, trials, store)

    assert plan.latency not in (None, whole)
    assert whole not in plan.stages
    session = plan.stages[plan.latency or ""]
    assert isinstance(session, latency.Stage)
    assert [one.reading.inference.stride_px for one in session.settings.timed.values()] == [16, 16]
    further = [line.cost for line in plan.costs if line.point.group == "g1"]
    assert stages_after_trials(plan, trials, timed=True) == {*further, plan.latency}
    kinds = [plan.stages[key].kind for key in stages_of_trials(plan, trials)]
    assert sorted(kinds) == ["cost", "cost", "evaluate", "latency", "text"]


def test_session_of_all_arms_that_is_finished_is_kept(
    clip: Path, photographs: Path, store: Store
) -> None:
    plan = planned(clip, photographs)
    whole = plan.latency
    assert whole is not None
    with store.lock([whole], on_wait=ignore, poll=ignore):
        store.finish(plan.stages[whole], summary=latency.Summary(n_timed=4), made={})

    time_only(plan, select_trials(plan.trials, ["g1"]), store)

    assert plan.latency == whole


def test_sweep_of_all_trials_times_all_arms(clip: Path, photographs: Path, store: Store) -> None:
    plan = planned(clip, photographs)
    whole = plan.latency

    time_only(plan, select_trials(plan.trials, []), store)

    assert plan.latency == whole
