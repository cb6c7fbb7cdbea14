"""A probe of another package, in one file: asked for by a spec, made beside evaluations, shown."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small import UNTIMED, runs, write_spec
from tests.test_plugins import install

PROBE = '''
"""The share of pixels of the classes that were seen."""

from typing import Annotated, ClassVar

from pydantic import Field

from spar_bench.stages import base
from spar_bench.stages.base import Estimate
from spar_bench.stages.evaluate import read_counts

VERSION = 1


class Settings(base.Settings):
    """What the share is multiplied with."""

    percent: Annotated[int, Field(gt=0)]


class Summary(base.Summary):
    """The share, and of how many images."""

    accuracy: float
    n_images: int


class Stage(base.Stage):
    """Made from an evaluation."""

    kind: ClassVar[str] = "pixels"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "outsider:make"

    settings: Settings

    @classmethod
    def probing(cls, evaluation, *, percent: int = 1, label: int = 3, sides: tuple = (1, 2)):
        assert isinstance(sides, tuple)
        inputs = {"evaluation": evaluation.fingerprint}
        return cls(settings=Settings(percent=percent), inputs=inputs)

    def estimate(self, stages):
        return Estimate(0.0, 100)


def make(stages, context):
    if context.store.root.name == "broken":
        raise ValueError("no pixels today")
    found = []
    for stage in stages:
        counts = read_counts(context.finished(stage, "evaluation"))
        share = counts.correct.sum() / counts.true.sum()
        n_images = len(counts.correct)
        found.append(Summary(accuracy=stage.settings.percent * share, n_images=n_images))
    return found
'''
TWO = (
    UNTIMED.replace("evaluate:\n", "evaluate:\n  probes: [{name: pixels, percent: 100}]\n")
    + "sweep:\n  - grid: {evaluate.methods: [[pretrained], [teacher]]}\n"
)


@pytest.fixture
def site(here: Path) -> Path:
    """A folder of installed packages with a probe."""
    site = here / "site"
    install(site, "outsider", "[spar_bench.stages]\npixels = outsider\n")
    (site / "outsider.py").write_text(PROBE)
    return site


def spar_bench(site: Path, *arguments: str, exits: int = 0) -> tuple[str, str]:
    """Run a command where the package is installed; return what it prints, and its errors."""
    result = subprocess.run(
        [sys.executable, "-m", "spar_bench", *arguments],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[2])])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == exits, result.stdout + result.stderr
    return result.stdout, result.stderr


def test_probe_is_planned_made_once_reported_and_explained(site: Path) -> None:
    write_spec(TWO)

    planned, _ = spar_bench(site, "plan", "tiny")
    spar_bench(site, "sweep", "experiments/tiny.yaml")
    again, _ = spar_bench(site, "sweep", "experiments/tiny.yaml")
    spar_bench(site, "report", "tiny")
    explained, _ = spar_bench(site, "explain", "tiny/methods=teacher")

    assert planned.count("pixels") == 2
    assert "0 stages made now" in again
    with open("reports/tiny/results.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["pretrained", "teacher"]
    assert [row["pixels.n_images"] for row in rows] == ["2", "2"]
    assert all(1 < float(row["pixels.accuracy"]) <= 100 for row in rows)
    assert f"  pixels.accuracy  {float(rows[1]['pixels.accuracy'])}" in explained
    assert "\n  pixels " in explained  # how it was made


def test_failed_probe_is_told_and_leaves_the_evaluation(site: Path) -> None:
    write_spec(TWO)

    out, error = spar_bench(site, "sweep", "experiments/tiny.yaml", "--store", "broken", exits=1)

    assert "2 of 2 trials finished" in out
    assert "failed: pixels: ValueError: no pixels today" in error
    rows = json.loads(Path("broken/results/tiny/results.json").read_text())["rows"]
    assert [row["probes"] for row in rows] == [{"pixels": {}}, {"pixels": {}}]
    assert all(row["miou"] > 0 for row in rows)
    assert all("pixels: ValueError: no pixels today" in row["reason"] for row in rows)


def test_run_of_a_failed_probe_is_that_of_the_probe_when_it_is_made(site: Path) -> None:
    write_spec(TWO)
    spar_bench(site, "sweep", "experiments/tiny.yaml", "--store", "broken", exits=1)
    before = [name for name, _ in runs()]
    Path("broken").rename("mended")

    spar_bench(site, "sweep", "experiments/tiny.yaml", "--store", "mended")

    assert [name for name, _ in runs()] == before


@pytest.mark.parametrize(
    ("probes", "told"),
    [
        ("[pixel]", "must be one of the probes, but got 'pixel'; did you mean 'pixels'?"),
        ("[images]", "must be one of the probes, but got 'images'"),
        ("[a/b.py]", "must be one of the probes, but got 'a/b.py'"),
        ("[{name: pixels, per: 2}]", "must be a setting of pixels, but got 'per'; did you mean"),
        ("[{name: pixels, percent: x}]", "percent"),
        ("[pixels, {name: pixels, percent: 2}]", "must name each once, but got 'pixels' again"),
        ("[{percent: 2}]", "must be one of the probes, but got ''"),
    ],
)
def test_mistakes_are_told_before_anything_runs(site: Path, probes: str, told: str) -> None:
    write_spec(TWO.replace("[{name: pixels, percent: 100}]", probes))

    _, error = spar_bench(site, "check", "experiments/tiny.yaml", exits=2)

    assert error.startswith("experiments/tiny.yaml:")
    assert "evaluate.probes" in error
    assert told in error
    assert error.count("\n") == 1


def test_settings_that_the_probe_refuses_are_one_line(site: Path) -> None:
    write_spec(TWO.replace("percent: 100", "percent: 0"))

    _, error = spar_bench(site, "plan", "tiny", exits=2)

    assert error == (
        "evaluate.probes: pixels must accept its settings, but percent must be above 0, but got 0; "
        "raise it\n"
    )


def test_kind_of_another_name_is_refused(site: Path) -> None:
    (site / "outsider.py").write_text(PROBE.replace('= "pixels"', '= "dots"'))
    write_spec(TWO)

    _, error = spar_bench(site, "plan", "tiny", exits=2)

    assert error.startswith(
        "evaluate.probes: pixels must be a kind of that name, but states 'dots'"
    )
    assert error.count("\n") == 1


def test_swept_settings_of_a_probe_are_told_apart_in_names_and_in_mlflow(site: Path) -> None:
    probes = "[[{name: pixels, percent: 1}], [{name: pixels, percent: 100, label: 2}]]"
    text = UNTIMED + f"sweep:\n  - grid: {{evaluate.probes: {probes}}}\n"
    write_spec(text + "    set: {evaluate.methods: [pretrained]}\n")

    spar_bench(site, "sweep", "experiments/tiny.yaml")

    rows = json.loads(Path(".spar_bench/results/tiny/results.json").read_text())["rows"]
    low, high = (row["probes"]["pixels"]["accuracy"] for row in rows)
    assert high == pytest.approx(100 * low)
    assert len({row["group"] for row in rows}) == 2
    assert len(runs()) == 3  # the sweep's, and one for each
