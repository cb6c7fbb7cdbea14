"""Shared by tests of executing: a plan, and stores in which it was made without errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from spar_bench.plan.trials import Plan
from spar_bench.store import Store
from tests.run.tiny import finished, plan_of, scheduler, settings


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
        one = finished(store, stage)
        found[fingerprint] = {k: v for k, v in one.summary.items() if k != "train_seconds"}
        for name, entry in one.manifest["files"].items():
            content: object = entry["sha256"]
            if name == "curve.json":
                content = [point[:2] for point in json.loads(one.path(name).read_text())]
            found[f"{fingerprint}/{name}"] = content
    return found
