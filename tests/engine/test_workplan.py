"""The plan that workers read: every stage of it travels as JSON and stays the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from spar_bench.engine.workplan import Retries, WorkPlan, read_work_plan
from spar_bench.errors import NotReady
from tests.run.conftest import clip, photographs
from tests.run.tiny import plan_of, settings

__all__ = ["clip", "photographs"]


@pytest.fixture
def saved(clip: Path, photographs: Path, tmp_path: Path) -> tuple[WorkPlan, Path]:
    """A plan of every kind of stage, and the file it was saved to."""
    measure = {"latency": True, "seconds": 0.1}
    checkpoint = tmp_path / "student.safetensors"
    checkpoint.write_bytes((clip / "open_clip_model.safetensors").read_bytes())
    plan = plan_of(
        settings(clip, photographs, measure=measure),
        settings(clip, photographs, student__checkpoint=str(checkpoint)),
    )
    work = WorkPlan(plan.stages, Retries(retry=True))
    return work, work.save(tmp_path / "plans")


def test_saved_plan_has_the_same_stages_in_the_same_order(saved: tuple[WorkPlan, Path]) -> None:
    work, path = saved

    found = read_work_plan(path)

    assert {stage.kind for stage in work.stages.values()} == {
        "images", "targets", "student", "imported", "text", "evaluate", "cost", "latency",
    }  # fmt: skip
    assert list(found.stages) == list(work.stages)
    assert dict(found.stages) == dict(work.stages)
    assert found.retries == work.retries


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"format": None}, {"further": 1}, {"stages": [{"kind": "student"}]}]
)
def test_plan_of_another_form_is_one_line(
    saved: tuple[WorkPlan, Path], change: dict[str, Any]
) -> None:
    _, path = saved
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(NotReady, match="must be a plan of format 1") as caught:
        read_work_plan(path)

    assert "\n" not in str(caught.value)


def test_stage_of_another_version_is_refused(saved: tuple[WorkPlan, Path]) -> None:
    _, path = saved
    document = json.loads(path.read_text())
    document["stages"][0]["version"] += 1
    path.write_text(json.dumps(document))

    with pytest.raises(Exception, match="plan and work with one version of spar-bench"):
        read_work_plan(path)
