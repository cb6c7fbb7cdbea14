"""A kind of stage of another package, in one file: planned, made, stored and listed as ours are."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.small import UNTIMED, write_spec
from tests.test_plugins import install

KIND = '''
"""How often each image of the source was drawn."""

import json
from collections import Counter
from typing import ClassVar

from spar_bench.files import replace_text
from spar_bench.stages import base
from spar_bench.stages.base import Estimate
from spar_bench.stages.images import read_list

VERSION = 3


class Settings(base.Settings):
    """What each draw counts."""

    weight: int


class Summary(base.Summary):
    """The sum."""

    total: int


class Stage(base.Stage):
    """Made from `images`."""

    kind: ClassVar[str] = "histogram"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "outsider:make"

    settings: Settings

    def estimate(self, stages):
        return Estimate(0.0, 100)


def make(stages, context):
    made = []
    for stage in stages:
        drawn = read_list(context.finished(stage, "images"))
        counts = Counter(str(one.index) for one in drawn)
        weighted = {index: stage.settings.weight * n for index, n in counts.items()}
        replace_text(context.store.output(stage) / "histogram.json", json.dumps(weighted))
        made.append(Summary(total=sum(weighted.values())))
    return made
'''

PLAN = """
import json, sys
from pathlib import Path
from spar_bench import registry
from spar_bench.conflicts import read_spec
from spar_bench.engine.workplan import Retries, WorkPlan
from spar_bench.plan.making import make_plan

def planned():
    plan = make_plan(read_spec("experiments/tiny.yaml").points, [0], None)
    [images] = [key for key, one in plan.stages.items() if one.kind == "images"]
    kind = registry.load("stages", "histogram")
    stage = kind.model_validate({"settings": {"weight": 5}, "inputs": {"images": images}})
    return plan, stage, plan.add(stage)
"""
SAVE = """
plan, stage, key = planned()
path = WorkPlan(plan.stages, Retries()).save(Path("plans"))
print(json.dumps([str(path), key, stage.inputs["images"]]))
"""
MAKE = """
from spar_bench.backends import in_process
from spar_bench.store import Store
from tests.run.tiny import scheduler

plan, stage, key = planned()
store = Store(Path("here"))
making, notes = scheduler(plan, store)
making.make([key])
again, none = scheduler(plan, Store(Path("here")))
again.make([key])
print(json.dumps([key, store.find(stage).summary, again.outcomes, notes.all[0::2], none.all]))
"""


@pytest.fixture
def site(here: Path) -> Path:
    """A folder of installed packages beside a spec, with one that has the kind of stage."""
    write_spec(UNTIMED)
    site = here / "site"
    install(site, "outsider", "[spar_bench.stages]\nhistogram = outsider\n")
    (site / "outsider.py").write_text(KIND)
    return site


def python(site: Path, *arguments: str, exits: int = 0) -> tuple[str, str]:
    """Run Python where the package is installed; return what it prints, and its errors."""
    path = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
    result = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert result.returncode == exits, result.stdout + result.stderr
    return result.stdout, result.stderr


def saved(site: Path) -> Any:
    """Save a plan with the stage; return its path, and fingerprints of the stage and its input."""
    return json.loads(python(site, "-c", PLAN + SAVE)[0])


def test_stage_is_made_in_this_process_and_found_in_the_store_the_next_time(site: Path) -> None:
    out, _ = python(site, "-c", PLAN + MAKE)

    key, summary, outcomes, notes, again = json.loads(out)
    assert summary == {"total": 10}  # two images are drawn
    assert outcomes == {key: "found"}
    assert [note[:2] for note in notes] == [["started", "images"], ["started", "histogram"]]
    assert again == []


def test_worker_makes_the_stage_of_a_saved_plan_and_commands_list_it(site: Path) -> None:
    plan, key, images = saved(site)

    out, _ = python(site, "-m", "spar_bench", "work", plan, images, key, "--store", "there")

    events = [json.loads(line) for line in out.splitlines()]
    assert [(one["kind"], one["fingerprint"]) for one in events if one["kind"] == "made"] == [
        ("made", images),
        ("made", key),
    ]
    [manifest] = Path("there/stages/histogram").glob("*/manifest.json")
    counts = json.loads(manifest.with_name("histogram.json").read_text())
    assert (manifest.parent.name, sum(counts.values())) == (key, 10)
    listed = [
        python(site, "-m", "spar_bench", *line.split(), "--store", "there")[0]
        for line in ("cache ls", "cache verify", "status", "plan experiments/tiny.yaml", "cache gc")
    ]
    assert "histogram" in listed[0]
    assert listed[1] == "2 stages intact, 0 damaged\n"
    assert "tiny" in listed[2]
    assert "2 images, seed 0" in listed[3]
    assert "0 stages, " in listed[4]  # one is the spec's, the other none that a spec could name


def test_fingerprint_has_the_source_of_the_kind_and_a_plan_of_another_is_refused(
    site: Path,
) -> None:
    plan, key, images = saved(site)
    source = hashlib.sha256((site / "outsider.py").read_bytes()).hexdigest()
    decided = ["histogram", 3, {"weight": 5}, {"images": images}, {"outsider": source}]
    text = json.dumps(decided, sort_keys=True, separators=(",", ":"))
    (site / "outsider.py").write_text(KIND.replace("sum(", "3 + sum("))

    _, error = python(site, "-m", "spar_bench", "work", plan, key, exits=2)

    assert key == hashlib.sha256(text.encode()).hexdigest()
    assert error == (
        "plan: a histogram must be made by the code that planned it, but the code has changed "
        "since; run the sweep again\n"
    )
    assert saved(site)[1] != key
