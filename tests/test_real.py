"""The experiment of real weights and data: what it lacks is named; without weights it runs too."""

import shutil
from pathlib import Path

import pytest

from spar_bench.results import Results
from tests.datasets import trees
from tests.small import spar_bench

REAL = Path(__file__).parents[1] / "experiments" / "real.yaml"
SMALLER = {
    "weights: find": "weights: random",
    "count: 25000": "count: 2",
    "[512, 1024]": "[224, 256]",
    "smallest_side_px: 512": "smallest_side_px: 224",
    "epochs: 10": "epochs: 1",
    "  average: logits": "  average: logits\n  short_side_px: [240]\n  templates: ['a {}.']\n"
    "measure: {seconds: 0.01}",
    "[224, 112, 64, 56, 40, 32, 24, 16]": "[224, 56]",
}


@pytest.fixture(name="spec")
def real(bare: Path) -> str:
    """The shipped spec in a folder of its own, and no weights or data anywhere."""
    Path("experiments").mkdir()
    shutil.copy(REAL, "experiments")
    return "experiments/real.yaml"


def swept(spec: str, changes: dict[str, str], *options: str) -> None:
    """Sweep a changed spec on miniature trees of its data."""
    trees.make("voc21", Path("data"))
    trees.make("sa1b", Path("data"))
    text = Path(spec).read_text()
    for found, changed in changes.items():
        assert text.count(found) == 1
        text = text.replace(found, changed)
    Path(spec).write_text(text)
    spar_bench("check", "--ready", spec)
    spar_bench("sweep", spec, *options)


def test_all_that_is_missing_is_named_at_once_with_where_to_get_it(spec: str) -> None:
    checked, ready = spar_bench("check", spec), spar_bench("check", "--ready", spec, exits=2)

    for said in (checked.stdout, ready.stdout):
        assert f"{spec}: is valid, 9 trials, 3 missing:" in said
        assert "weights/openclip-b16-laion2b" in said
        assert "https://huggingface.co/laion/CLIP-ViT-B-16-laion2B-s34B-b88K (MIT)" in said
        assert "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/" in said
        assert "https://ai.meta.com/datasets/segment-anything/" in said
    assert ready.stderr.startswith("--ready: weights and data must be there, but 3 of them")


def test_with_miniature_trees_only_the_weights_are_missing(spec: str) -> None:
    trees.make("voc21", Path("data"))
    trees.make("sa1b", Path("data"))

    said = spar_bench("check", "--ready", spec, exits=2).stdout

    assert "1 missing:" in said
    assert "openclip-b16-laion2b: its weights must be in" in said


@pytest.mark.slow
def test_with_random_weights_and_miniature_trees_it_runs_to_its_report(spec: str) -> None:
    swept(spec, SMALLER | {"precision: float16": "precision: float32"}, "--threads", "1")
    spar_bench("report", "real")

    rows = Results.load(Path(".spar_bench/results/real")).rows
    assert [(row.method, row.status) for row in rows] == [
        ("teacher", "finished"), ("teacher", "finished"),
        ("pretrained", "finished"), ("student", "finished"),
    ]  # fmt: skip
    assert {(row.backbone, row.random_weights) for row in rows} == {("openclip-b16-laion2b", True)}
    tables = [*Path("reports/real").glob("*.md"), *Path("reports/real").glob("*.tex")]
    assert len(tables) >= 2
    assert all("random weights" in path.read_text() for path in tables)
    assert "**Some weights are random" in Path("reports/real/README.md").read_text()
    figures = list(Path("reports/real").glob("*.svg"))
    assert figures
    assert all("random weights" in path.read_text() for path in figures)
