"""The shapes that sizes determine, as the libraries that make the files have them."""

import shutil
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from spar_bench import registry
from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.components.backbone import identity, known_sizes, shapes_of
from spar_bench.components.fits import determined_shapes, require_shapes
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.spec.schema import BackboneSpec
from tests.backbones.dinov3 import tiny
from tests.backbones.towers import NAMES, hollow
from tests.components.data_files import LAION


@pytest.mark.parametrize("name", NAMES)
def test_shapes_of_siglip2_are_those_of_its_tower(name: str) -> None:
    tower = hollow(name).state_dict()
    found = {f"module.visual.{key}": tuple(value.shape) for key, value in tower.items()}

    wanted = shapes_of(BackboneSpec(name=name))

    require_shapes(Path("w"), found, wanted)
    assert len({f"module.{key}" for key in wanted} & found.keys()) == 2


def test_shapes_of_clip_are_those_of_its_tower() -> None:
    with torch.device("meta"):
        state = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16")).state_dict()
    found = {key: tuple(value.shape) for key, value in state.items()}

    wanted = shapes_of(BackboneSpec(name="openclip-b16-laion2b"))

    require_shapes(Path("w"), found, wanted)
    assert len(wanted.keys() & found.keys()) == 2


def test_shapes_of_dinov3_are_those_of_metas_file() -> None:
    known = known_sizes(BackboneSpec(name="dinov3-b16"))
    small = replace(known, width=tiny.WIDTH, patch_px=tiny.PATCH_PX)
    wanted = determined_shapes(registry.source("backbones", "dinov3-b16"), small)

    require_shapes(Path("w"), tiny.trunk_shapes(), wanted)
    assert len(wanted.keys() & tiny.trunk_shapes().keys()) == 1


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ('["visual.proj"]', "must map names to sizes"),
        ('{"a": 5}', "must map names to sizes"),
        ('{"a": "read_out"}', "must name sizes, such as width, but got 'read_out'"),
    ],
)
def test_shapes_of_another_form_are_the_plug_ins_mistake(
    tmp_path: Path, shapes: str, told: str
) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(f"SHAPES = {shapes}\n")

    with pytest.raises(SparBenchError, match=told):
        determined_shapes(plugin, known_sizes(BackboneSpec(name="patchwork")))


def test_another_shape_of_as_many_elements_is_left_to_the_library() -> None:
    require_shapes(Path("w"), {"a": (6,)}, {"a": (2, 3)})
    with pytest.raises(NotReady, match=r"^w: a must be of shape \(2, 3\), but is of shape \(5,\)"):
        require_shapes(Path("w"), {"a": (5,)}, {"a": (2, 3)})


@pytest.mark.parametrize(
    ("name", "shape", "ending"),
    [
        ("visual.positional_embedding", (37, 16), ".safetensors"),  # of images of 48 px
        ("visual.positional_embedding", (37, 16), ".pth"),
        ("positional_embedding", (12, 8), ".safetensors"),  # of shorter texts
    ],
)
@pytest.mark.parametrize("has_config", [True, False])
def test_positions_of_another_size_are_refused_and_not_resampled(
    tmp_path: Path,
    clip: Path,
    named: str,
    name: str,
    shape: tuple[int, ...],
    *,
    ending: str,
    has_config: bool,
) -> None:
    own = load_file(clip / "open_clip_model.safetensors")
    state = {**own, name: torch.zeros(shape)}
    path = tmp_path / "other" / f"open_clip_pytorch_model{ending}"
    path.parent.mkdir()
    if has_config:
        shutil.copy(clip / "open_clip_config.json", path.parent)
    if ending == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)

    with pytest.raises(NotReady) as caught:
        OpenClip(BackboneSpec(name=named, path=str(path.parent)))

    assert str(caught.value) == (
        f"{path}: {name} must be of shape {tuple(own[name].shape)}, but is of shape {shape}; name "
        "other weights, or the backbone they belong to"
    )


def test_a_file_of_another_architecture_is_refused_before_anything_is_run(clip: Path) -> None:
    path = clip / "open_clip_model.safetensors"

    with pytest.raises(NotReady) as caught:
        identity(BackboneSpec(name=LAION, path=str(path)))

    assert str(caught.value) == (
        f"{path}: visual.conv1.weight must be of shape (768, 3, 16, 16), but is of shape "
        "(16, 3, 8, 8); name other weights, or the backbone they belong to"
    )


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_file_of_another_architecture_is_refused_before_it_is_resampled(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"half{ending}"
    state = {"visual.positional_embedding": torch.zeros(65, 768).half()}
    if ending == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)

    with pytest.raises(
        NotReady, match=r"must be of shape \(197, 768\), but is of shape \(65, 768\)"
    ):
        OpenClip(BackboneSpec(name=LAION, path=str(path)))


def test_shapes_that_name_no_size_are_one_line(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text('SHAPES = {"pos": "1 depht width"}\n')

    with pytest.raises(SparBenchError) as caught:
        determined_shapes(plugin, known_sizes(BackboneSpec(name="patchwork")))

    assert str(caught.value) == (
        f"{plugin}: SHAPES: must name sizes, such as width, but got 'depht'; correct it"
    )
