"""The specs that are shipped: read with the plug-ins that there are, they have no mistake."""

import re
from pathlib import Path

import pytest

from spar_bench.conflicts import read_spec
from spar_bench.spec.starter import write_starter

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments"
EXPERIMENTS = sorted(FOLDER.rglob("*.yaml"))


def name_of(path: Path) -> str:
    return path.relative_to(FOLDER).with_suffix("").as_posix()


def test_the_experiments_are_these() -> None:
    alone = [name_of(path) for path in EXPERIMENTS if path.parent == FOLDER]
    assert alone == [
        "loss", "real", "recipe", "resolution", "search", "smoke", "stride", "trainable", "window",
    ]  # fmt: skip
    assert {path.parent.name for path in EXPERIMENTS} == {"experiments", "claims", "paper"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_an_experiment_reads_without_a_mistake(path: Path) -> None:
    loaded = read_spec(path, environ={})

    assert loaded.experiment == name_of(path)
    assert loaded.spec.question.endswith("?")
    assert loaded.points or loaded.search


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_an_experiment_opens_with_claim_command_expectation_and_cost(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    comment = text.partition("\n\n")[0].splitlines()
    is_claims, is_paper = (path.parent.name == suite for suite in ("claims", "paper"))
    commands = [f"sweep experiments/{name_of(path)}.yaml", f"report {name_of(path)}"]
    expected = "# Published" if is_paper else "# Expected: "

    assert all(line.startswith("#") for line in comment)
    if not is_claims:
        assert all(
            any(line.startswith(f"#   spar-bench {command}") for line in comment)
            for command in commands
        )
    assert any(line.startswith(expected) or "published" in line for line in comment) or is_claims
    assert any(line.startswith("# Cost") for line in comment) or is_claims
    schema = re.fullmatch(r"# yaml-language-server: \$schema=(.+)", comment[-1])
    assert schema is not None
    assert (path.parent / schema[1]).is_file()


def test_the_stride_experiment_holds_the_papers_comparison() -> None:
    points = read_spec(ROOT / "experiments/stride.yaml", environ={}).points

    teachers = [point for point in points if point.settings.evaluate.methods == ["teacher"]]
    students = [point for point in points if point not in teachers]
    assert [point.settings.teacher.stride_px for point in teachers] == [64, 32, 28, 18, 16, 12, 8]
    assert {point.settings.teacher.window_px for point in points} == {64}
    assert [point.group for point in students] == [
        "trainable=last_2_blocks",
        "trainable=all",
        "trainable=last_2_blocks,checkpoint=patchwork-spar",
        "trainable=all,checkpoint=patchwork-spar-all",
    ]
    assert {point.settings.teacher.stride_px for point in students} == {18}
    assert all(point.settings.evaluate.datasets[0].count == 48 for point in points)


def test_the_search_tries_the_papers_recipe_first() -> None:
    search = read_spec(ROOT / "experiments/search.yaml", environ={}).search

    assert search is not None
    assert search.enqueue[0]["student.loss"] == "mse"
    assert search.enqueue[0]["student.trainable"] == "last_2_blocks"
    assert search.sampler == "tpe"
    assert search.objectives == {"miou": "maximize", "train_gflops": "minimize"}


def test_the_starter_reads_without_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    write_starter(path)

    assert [point.group for point in read_spec(path, environ={}).points] == [
        "stride_px=64",
        "stride_px=28",
        "stride_px=16",
        "trainable=last_2_blocks",
        "trainable=all",
    ]
