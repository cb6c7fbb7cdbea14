"""The paper's table and figures as specs: valid without weights or data, and whole in miniature."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from spar_bench.conflicts import read_spec
from spar_bench.session.planning import plan_sweep
from spar_bench.stages import evaluate
from tests.backbones.tiny_siglip import write_tokenizer
from tests.backbones.towers import config_of
from tests.datasets import trees
from tests.small import spar_bench

ROOT = Path(__file__).parents[1]
PAPER = sorted((ROOT / "experiments" / "paper").glob("*.yaml"))
DATASETS = ["voc21", "voc20", "cityscapes", "ade20k", "context60", "context59"]


@pytest.fixture(name="folder")
def of_specs(bare: Path) -> Path:
    """Work in a folder with the paper's specs alone, and no weights or data anywhere."""
    shutil.copytree(ROOT / "experiments" / "paper", "experiments/paper")
    return bare


def test_there_is_a_spec_for_each_table_and_figure() -> None:
    assert {path.stem for path in PAPER} >= {
        "main_table", "stride_figure", "resolution_figure", "trainable", "training_cost",
    }  # fmt: skip
    assert {read_spec(path).spec.reproduces for path in PAPER} >= {
        "main_table", "stride_figure", "resolution_figure",
    }  # fmt: skip


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_each_is_checked_and_planned_without_weights_or_data(path: Path, folder: Path) -> None:
    spec = f"experiments/paper/{path.name}"

    checked, view = spar_bench("check", spec), plan_sweep(spec)

    assert "is valid" in checked.stdout
    assert view.lacking
    assert view.gflops > 1e9
    assert all(planned.to_do for planned in view.stages)


def test_stride_figure_has_the_papers_windows(folder: Path) -> None:
    view = plan_sweep("experiments/paper/stride_figure.yaml")

    found = {
        planned.stage.settings.inference.stride_px: planned.estimate.n_windows
        for planned in view.stages
        if isinstance(planned.stage, evaluate.Stage)
        and planned.stage.places.display_name == "cityscapes"
    }
    assert found == {
        512: 8, 256: 21, 128: 65, 64: 225, 56: 319, 40: 560, 32: 833, 24: 1495, 16: 3201,
        8: 12545, None: 1,
    }  # fmt: skip


def in_miniature(spec: str, change: Callable[[Any], None]) -> None:
    """Change a spec to random weights, tiny images and two images of each data set."""
    for name in (*DATASETS, "sa1b"):
        trees.make(name, Path("data"), n=2)
    yaml = YAML()
    stated = yaml.load(Path(spec).read_text())
    stated["images"] |= {"count": 2, "short_side_px": [64, 80], "smallest_side_px": 64}
    stated["teacher"]["stride_px"] = 24
    stated["student"] |= {"epochs": 1, "precision": "float32"}
    stated["evaluate"] |= {"short_side_px": [64], "templates": ["a {}."]}
    change(stated)
    with Path(spec).open("w") as file:
        yaml.dump(stated, file)


def randomly(name: str) -> dict[str, str]:
    """Return a backbone of true size with random weights; SigLIP2's tokenizer is a tiny one."""
    if not name.startswith("siglip2"):
        return {"name": name, "weights": "random"}
    folder = Path("tokenizers", name)
    if not folder.exists():
        folder.mkdir(parents=True)
        config = {"model_cfg": config_of(name)}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        write_tokenizer(folder)
    return {"name": name, "weights": "random", "path": str(folder)}


def randomise(stated: Any) -> None:
    """Give random weights to every backbone and refiner of the main table."""
    for block in stated["sweep"]:
        for point in [*block.get("cases", []), block.get("zip", {}), block.get("set", {})]:
            if isinstance(names := point.get("backbone"), str):
                point["backbone"] = randomly(names)
            elif names:
                point["backbone"] = [randomly(name) for name in names]
            if refiner := point.get("evaluate.refiner"):
                point["evaluate.refiner"] = {"name": refiner, "weights": "random"}


@pytest.mark.slow
def test_main_table_in_miniature_fills_each_cell_and_compares_none(folder: Path) -> None:
    spec = "experiments/paper/main_table.yaml"
    in_miniature(spec, randomise)

    spar_bench("sweep", spec, "--threads", "1")
    spar_bench("report", "paper/main_table")

    report = Path("reports/paper/main_table")
    with (report / "paper.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 126
    assert all(line["ours"] for line in lines)
    assert {line["verdict"] for line in lines} == {"not_comparable"}
    assert all("some weights are random" in line["reason"] for line in lines)
    with (report / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all("random weights" in row["backbone"] for row in rows)
    assert {row["refiner"] for row in rows} == {"none", "anyup", "lposs"}
    with (report / "claims.csv").open() as file:
        assert {line["verdict"] for line in csv.DictReader(file)} == {"not_comparable"}
