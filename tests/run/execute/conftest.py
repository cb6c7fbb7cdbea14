"""Shared by tests of executing: a plan, and stores in which it was made without errors."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from spar_bench.plan.trials import Plan
from spar_bench.store import Store
from tests.run.tiny import finished, plan_of, scheduler, settings
from tests.small import lasting


@pytest.fixture(scope="session")
def plan(clip: Path, photographs: Path) -> Plan:
    """One student; teachers at three strides, the pretrained model."""
    methods: dict[str, Any] = {"evaluate__methods": ["teacher"]}
    return plan_of(
        settings(clip, photographs),
        settings(clip, photographs, teacher__stride_px=32, **methods),
        settings(clip, photographs, teacher__stride_px=16, **methods),
    )


@pytest.fixture(scope="session")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the plan was made and nothing went wrong."""
    store = Store(tmp_path_factory.mktemp("whole"))
    scheduler(plan, store)[0].make(plan.stages)
    return store


@pytest.fixture(scope="session")
def undisturbed(plan: Plan, whole: Store) -> dict[str, Any]:
    """What the plan's stages hold when nothing goes wrong."""
    return contents(whole, plan)


@pytest.fixture
def filled(whole: Store, tmp_path: Path) -> Store:
    """A copy of the whole store, to be damaged."""
    return Store(shutil.copytree(whole.root, tmp_path / "filled"))


def contents(store: Store, plan: Plan) -> dict[str, Any]:
    """Return all that a plan's stages hold except times: files by content, summaries."""
    found: dict[str, Any] = {}
    for fingerprint, stage in plan.stages.items():
        found[fingerprint], files = lasting(finished(store, stage))
        found |= {f"{fingerprint}/{name}": content for name, content in files.items()}
    return found
