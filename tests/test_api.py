"""The library without the command line: load, read, score and measure."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spar_bench as sb
from spar_bench.accuracy import Counts
from spar_bench.api import Evaluation
from spar_bench.backbones.base import Backbone
from spar_bench.datasets import folder
from spar_bench.datasets.base import DatasetSettings, Split
from spar_bench.errors import NotReady, UnknownName
from spar_bench.inference import SINGLE_PASS
from spar_bench.plan.cost import image_flops
from spar_bench.stage import MANIFEST, Damaged, digest
from spar_bench.store import Store
from tests.run.conftest import clip, photographs
from tests.run.tiny import make_stage, of_kind, plan_of, settings, write_clip

__all__ = ["clip", "photographs"]


@pytest.fixture(scope="module")
def student(clip: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished student."""
    store = Store(tmp_path_factory.mktemp("student"))
    plan = plan_of(settings(clip, photographs))
    [stage] = of_kind(plan, "student")
    return make_stage(plan, store, stage).folder


@pytest.fixture
def backbone(clip: Path) -> Backbone:
    """The small model."""
    return sb.load_backbone(clip)


def test_backbone_is_loaded_by_name_or_folder(clip: Path, backbone: Backbone) -> None:
    assert sb.load_backbone("patchwork").sizes.width == 128
    assert backbone.sizes.width == 16
    assert sb.load_backbone(str(clip)).sizes == backbone.sizes


def test_student_is_its_backbone_with_what_was_trained(student: Path, backbone: Backbone) -> None:
    loaded, image = sb.load_backbone(student), torch.randn(1, 3, 32, 48)

    before, after = backbone.visual.state_dict(), loaded.visual.state_dict()

    moved = {name.split(".")[2] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"1", "2"}  # the last two blocks of three
    assert not torch.equal(sb.single_pass(loaded, image), sb.single_pass(backbone, image))


def test_student_whose_weights_were_altered_is_refused(student: Path, tmp_path: Path) -> None:
    folder = tmp_path / student.name
    shutil.copytree(student, folder)
    path = folder / "trained.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    with pytest.raises(
        Damaged, match=r"trained\.safetensors: must be .* but differs from its checksum"
    ):
        sb.load_backbone(folder)


def test_student_whose_backbone_has_changed_is_refused(student: Path, tmp_path: Path) -> None:
    folder, other = tmp_path / student.name, write_clip(tmp_path / "clip", seed=1)
    shutil.copytree(student, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["summary"]["backbone"]["path"] = str(other)
    del manifest["sha256"]
    manifest["sha256"] = digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(NotReady, match="has changed since; put the old weights back"):
        sb.load_backbone(folder)


def test_folder_with_nothing_to_load_and_unknown_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"must hold open_clip_config\.json or a student's"):
        sb.load_backbone(tmp_path)
    with pytest.raises(
        UnknownName,
        match=r"backbone: must be a known name, but got 'patchwrk'; did you mean 'patchwork'",
    ):
        sb.load_backbone("patchwrk")


@pytest.mark.parametrize("method", ["pretrained", "teacher", "student"])
@pytest.mark.parametrize("average", ["logits", "features"])
def test_score_is_that_of_a_sweep(
    clip: Path, photographs: Path, student: Path, tmp_path: Path, method: str, average: str
) -> None:
    plan = plan_of(
        settings(clip, photographs, evaluate__methods=[method], evaluate__average=average)
    )
    [row] = plan.trials[0].rows
    store = Store(tmp_path / "store")
    finished = make_stage(plan, store, plan.stages[row.evaluate])
    data = sb.DatasetSpec(name="folder", path=str(photographs), templates=["a {}."])

    found = sb.evaluate(
        sb.load_backbone(student if method == "student" else clip),
        data,
        short_side_px=40,
        stride_px=12 if method == "teacher" else None,
        average=average,  # type: ignore[arg-type]
    )

    assert found.miou == finished.summary["miou"]
    assert list(found.class_iou) == ["sky", "road", "tree"]
    assert np.mean(list(found.class_iou.values())) == pytest.approx(found.miou)


def test_score_of_a_background_class_is_called_so(
    backbone: Backbone, photographs: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "plugin: folder\nclasses: [[sky, cloud], [road], [tree]]\nbackground_threshold: 0.1\n"
    )
    data = sb.DatasetSpec(name=str(mine), path=str(photographs), templates=["a photo of a {}."])

    found = sb.evaluate(backbone, data)

    assert list(found.class_iou) == ["background", "road", "tree"]


def test_class_names_of_a_spec_count_as_in_a_sweep_though_the_plug_in_has_its_own(
    clip: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf(folder.Dataset):
        def __init__(self, split: Split, settings: DatasetSettings) -> None:
            super().__init__(split, replace(settings, classes=None))

    monkeypatch.setattr(folder, "Dataset", Deaf)
    data = {
        "name": "folder",
        "path": str(photographs),
        "templates": ["a {}."],
        "classes": [["lamp"], ["bench", "seat"], ["sign"]],
    }
    plan = plan_of(
        settings(clip, photographs, evaluate__methods=["pretrained"], evaluate__datasets=[data])
    )
    [row] = plan.trials[0].rows
    store = Store(tmp_path / "store")
    finished = make_stage(plan, store, plan.stages[row.evaluate])

    found = sb.evaluate(sb.load_backbone(clip), sb.DatasetSpec(**data), short_side_px=40)

    assert list(found.class_iou) == ["lamp", "bench", "sign"]
    assert found.miou == finished.summary["miou"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"window_px": 16, "stride_px": 24}, r"stride_px: must be 1 to window_px \(16\)"),
        ({"stride_px": -3}, "evaluate: stride_px: must be above 0, but got -3"),
        ({"stride_px": 0}, "evaluate: stride_px: must be above 0, but got 0"),
        ({"window_px": 16}, "evaluate: window_px: must come with a stride, but got only 16"),
        ({"average": "x"}, "average: must be logits or features, but got 'x'; use one of them"),
        ({"short_side_px": 3}, "short_side_px: must be at least the backbone's patch"),
        ({"short_side_px": 0}, "evaluate: short_side_px: must be above 0, but got 0"),
    ],
)
def test_evaluation_refuses_arguments_out_of_range(
    backbone: Backbone, photographs: Path, arguments: dict[str, Any], told: str
) -> None:
    data = sb.DatasetSpec(name="folder", path=str(photographs), templates=["a {}."])

    with pytest.raises(ValueError, match=told):
        sb.evaluate(backbone, data, **{"short_side_px": 40, **arguments})


def test_folder_that_is_not_named_is_told_in_one_line(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="must name a folder, but got only 'folder'") as error:
        sb.evaluate(backbone, "folder")

    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("image_hw", "arguments", "told"),
    [
        ((64, 80), {"seconds": 0}, "measure: seconds: must be above 0, but got 0"),
        ((64, 80), {"n_queries": 0}, "measure: n_queries: must be above 0, but got 0"),
        ((64, 80), {"stride_px": 0}, "measure: stride_px: must be above 0, but got 0"),
        ((64, 1), {}, "measure: image_hw: must be at least the backbone's patch"),
    ],
)
def test_measuring_refuses_arguments_out_of_range(
    backbone: Backbone, image_hw: tuple[int, int], arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        sb.measure(backbone, image_hw, **arguments)


@pytest.mark.parametrize("shape", [(3, 32, 48), (1, 4, 32, 48), (1, 3, 32, 2)])
def test_images_of_another_shape_are_refused(backbone: Backbone, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images: must be \(B, 3, H, W\)"):
        sb.single_pass(backbone, torch.zeros(shape))
    with pytest.raises(ValueError, match=r"images: must be \(B, 3, H, W\)"):
        sb.sliding_window(backbone, torch.zeros(shape), window_px=16, stride_px=8)


def test_evaluation_is_shown_in_one_line() -> None:
    counts = Counts(np.full((3, 2), 5), np.full((3, 2), 10), np.full((3, 2), 10))

    found = Evaluation(1 / 3, {"sky": 1 / 3, "road": 1 / 3}, counts)

    assert repr(found) == "Evaluation(miou=0.3333, 2 classes, 3 images)"


@pytest.mark.parametrize(("stride_px", "n_windows"), [(None, 1), (16, 2 * 3)])
def test_cost_of_reading_an_image_is_measured(
    backbone: Backbone, stride_px: int | None, n_windows: int
) -> None:
    found = sb.measure(backbone, (48, 64), stride_px=stride_px, n_queries=5, seconds=0.01)

    assert found["n_windows"] == n_windows
    assert 0 < found["encoder_p50_ms"] <= found["latency_p90_ms"]
    assert found["latency_p10_ms"] <= found["latency_p50_ms"] <= found["latency_p90_ms"]
    if stride_px is None:
        flops = image_flops(backbone.sizes, SINGLE_PASS, (48, 64), n_queries=5)
        assert found["gflops"] == pytest.approx(flops / 1e9)
