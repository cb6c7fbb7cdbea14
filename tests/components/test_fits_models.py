"""Models by name, for weights without a config: stated, known and of the stated sizes, or told."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest

from spar_bench import registry
from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.components.backbone import identity, require_known_model
from spar_bench.components.fits import require_model
from spar_bench.components.open_clip_config import config_by_name
from spar_bench.components.weights import Weights
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec
from tests.run.tiny import MODEL
from tests.small import TINY, spar_bench, write_spec

SIZES = {
    "patch_px": 8,
    "image_px": 32,
    "width": 16,
    "depth": 3,
    "heads": 2,
    "mlp_ratio": 4.0,
    "channels": 12,
    "read_out": "maskclip",
}
CLIP_B16: dict[str, Any] = {
    **{"patch_px": 16, "image_px": 224, "width": 768, "depth": 12, "heads": 12, "channels": 512},
    "model": "ViT-B-16",
}


def data_file(folder: Path, plugin: str = "openclip", **stated: Any) -> str:
    path = folder / "vit.yaml"
    path.write_text(json.dumps({"plugin": plugin, **SIZES, **stated}))
    return str(path)


def add_model(folder: Path, name: str, **vision: Any) -> None:
    """Have open_clip know a small model with another image tower."""
    config = {**MODEL, "vision_cfg": {**MODEL["vision_cfg"], **vision}}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")


def random(name: str) -> BackboneSpec:
    return BackboneSpec(name=name, weights="random")


@pytest.mark.parametrize("given", ["random", "file", "folder"])
def test_data_file_must_name_a_model_where_no_config_does(
    tmp_path: Path, clip: Path, given: str
) -> None:
    name = data_file(tmp_path)
    (tmp_path / "bare").mkdir()
    weights = clip / "open_clip_model.safetensors"
    (tmp_path / "bare" / "w.safetensors").write_bytes(weights.read_bytes())
    spec = {
        "random": random(name),
        "file": BackboneSpec(name=name, path=str(weights)),
        "folder": BackboneSpec(name=name, path=str(tmp_path / "bare")),
    }[given]

    told = (
        f"{name}: model: must name one of open_clip's models, since no config says what to build, "
        "but is left out; add it, or name a folder with open_clip_config.json as backbone.path"
    )
    for use in (identity, OpenClip):
        with pytest.raises(NotReady) as caught:
            use(spec)
        assert str(caught.value) == told
    identity(BackboneSpec(name=name, path=str(clip)))


@pytest.mark.parametrize("plugin", ["naflex", "dinov3"])
def test_plug_ins_that_never_read_a_config_always_need_a_model(
    tmp_path: Path, clip: Path, plugin: str
) -> None:
    name = data_file(tmp_path, plugin)

    with pytest.raises(NotReady, match=r"model: must name one of .* but is left out; add it$"):
        require_known_model(BackboneSpec(name=name), Weights(clip))


def test_unknown_model_is_answered_with_the_nearest(tmp_path: Path) -> None:
    name = data_file(tmp_path, **{**CLIP_B16, "model": "ViT-B-61"})

    for use in (identity, OpenClip):
        with pytest.raises(NotReady) as caught:
            use(random(name))
        assert str(caught.value) == (
            f"{name}: model: must be one that open_clip knows, but got 'ViT-B-61'; did you mean "
            "'ViT-B-16'?"
        )


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [
        ("channels", 768, 512),
        ("image_px", 256, 224),
        ("patch_px", 14, 16),
        ("width", 512, 768),
        ("depth", 6, 12),
    ],
)
def test_sizes_must_be_those_of_the_named_model(
    tmp_path: Path, field: str, value: int, right: int
) -> None:
    identity(random(data_file(tmp_path, **CLIP_B16)))
    name = data_file(tmp_path, **{**CLIP_B16, field: value})

    with pytest.raises(NotReady) as caught:
        identity(random(name))

    assert str(caught.value) == (
        f"{name}: {field}: must be {right}, as in open_clip's ViT-B-16, but is {value}; correct "
        "it, or name the model that it belongs to"
    )


def test_size_that_only_the_model_built_has_is_told_of_the_data_file(tmp_path: Path) -> None:
    add_model(tmp_path, "two-heads")
    name = data_file(tmp_path, model="two-heads", heads=4)

    with pytest.raises(NotReady, match="heads: must be 2, as in open_clip's two-heads, but is 4"):
        OpenClip(random(name))


@pytest.mark.parametrize(
    ("vision", "told"),
    [
        ({"layers": [1, 1, 1, 1], "width": 8}, "but the random model has a ModifiedResNet; use"),
        ({"head_width": 5}, "^model odd: must be one that open_clip builds, but building it fail"),
    ],
)
def test_model_that_cannot_be_used_is_told_by_its_name(
    tmp_path: Path, vision: dict[str, Any], told: str
) -> None:
    add_model(tmp_path, "odd", **vision)

    with pytest.raises(NotReady, match=told) as caught:
        OpenClip(random(data_file(tmp_path, model="odd")))
    assert "None" not in str(caught.value)


def test_model_with_a_prefix_is_not_looked_for_elsewhere() -> None:
    assert config_by_name("hf-hub:someone/tiny") is None


def test_plug_in_that_does_not_build_by_name_needs_no_model() -> None:
    weights = Weights(None, is_random=True)

    require_model(registry.source("backbones", "patchwork"), weights, "", "here")


def test_check_tells_a_missing_model(here: Path) -> None:
    data_file(here)
    backbone = "backbone: {name: vit.yaml, weights: random}"
    spec = write_spec(TINY.replace("backbone: patchwork", backbone))

    checked = spar_bench("check", "--ready", spec, exits=2)

    assert "vit.yaml: model: must name one of open_clip's models" in checked.stdout
    assert "missing: vit.yaml: model: must name" in spar_bench("plan", spec).stdout
