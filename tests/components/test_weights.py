"""Where weights are looked for, the message when there are none, and random ones on demand."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.components.backbone import (
    card,
    display_name,
    has_random_weights,
    identity,
    require_text,
    sizes,
    weights_of,
)
from spar_bench.components.weights import LEGACY
from spar_bench.errors import DataFileError, NotReady, SparBenchError, SpecError, UnknownName
from spar_bench.spec.schema import BackboneSpec
from tests.components.data_files import LAION, TINY
from tests.components.hub import in_hub_cache, nowhere

__all__ = ["nowhere"]


def images(*image_hw: int) -> Tensor:
    return torch.randn(1, 3, *image_hw, generator=torch.Generator().manual_seed(0))


def test_missing_weights_are_named_with_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(NotReady) as caught:
        identity(BackboneSpec(name=LAION))

    assert str(caught.value) == (
        f"backbone {LAION}: its weights must be in {tmp_path}/weights/{LAION} or in the Hugging "
        "Face cache, but neither has the repository laion/CLIP-ViT-B-16-laion2B-s34B-b88K; get "
        "them from https://huggingface.co/laion/CLIP-ViT-B-16-laion2B-s34B-b88K (MIT), or name "
        "them as backbone.path"
    )
    with pytest.raises(NotReady, match="its weights must be in"):
        OpenClip(BackboneSpec(name=LAION))


def test_a_folder_of_the_name_comes_before_the_hubs_cache(
    tmp_path: Path, tiny: str, clip: Path
) -> None:
    cached = in_hub_cache(tmp_path / "hub", "someone/tiny", clip)
    spec = BackboneSpec(name=tiny)
    assert weights_of(spec).path == cached

    shutil.copytree(clip, tmp_path / "weights" / "tiny")

    assert weights_of(spec).path == (tmp_path / "weights" / "tiny").resolve()


def test_one_set_of_weights_is_one_identity_wherever_it_lies(
    tmp_path: Path, tiny: str, clip: Path
) -> None:
    by_path = identity(BackboneSpec(name=tiny, path=str(clip)))
    in_hub_cache(tmp_path / "hub", "someone/tiny", clip)

    assert identity(BackboneSpec(name=tiny)) == by_path


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_file_of_weights_is_read_with_the_architecture_of_the_name(
    tmp_path: Path, ending: str, clip: Path, named: str
) -> None:
    path = tmp_path / f"whole{ending}"
    state = load_file(clip / "open_clip_model.safetensors")
    if ending == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)

    found = OpenClip(BackboneSpec(name=named, path=str(path)))

    expected = OpenClip(BackboneSpec(path=str(clip)))
    with torch.no_grad():
        assert torch.equal(found.features(images(32, 48)), expected.features(images(32, 48)))
    assert torch.equal(found.encode_text(["a cat"]), expected.encode_text(["a cat"]))


def test_random_weights_come_by_demand_alone_and_are_the_same_each_time(clip: Path) -> None:
    named = BackboneSpec(name=LAION, weights="random")
    spec = BackboneSpec(path=str(clip), weights="random")

    first, second = OpenClip(spec), OpenClip(spec)

    assert (display_name(named), has_random_weights(named)) == (LAION, True)
    assert identity(named).files == {"random": 0}
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.visual.parameters(), second.visual.parameters(), strict=True)
    )


def test_random_weights_beside_a_file_are_not_that_files(named: str, clip: Path) -> None:
    path = str(clip / "open_clip_model.safetensors")

    random = identity(BackboneSpec(name=named, path=path, weights="random"))

    assert random == identity(BackboneSpec(name=named, weights="random"))
    assert random != identity(BackboneSpec(name=named, path=path))


def test_random_weights_of_a_folder_have_its_config_and_not_its_weights(
    tmp_path: Path, clip: Path
) -> None:
    spec = BackboneSpec(name="openclip", path=str(clip), weights="random")

    found = OpenClip(spec).visual.state_dict()

    kept = load_file(clip / "open_clip_model.safetensors")
    assert found["conv1.weight"].shape == kept["visual.conv1.weight"].shape
    assert not torch.equal(found["conv1.weight"], kept["visual.conv1.weight"])
    assert "open_clip_model.safetensors" not in identity(spec).files


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("weights.ckpt", "a file of weights must end in"),
        ("gone.pt", r"must be a folder or file of weights, but .*gone\.pt does not exist"),
    ],
)
def test_a_path_that_holds_no_weights_is_refused(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "weights.ckpt").touch()

    with pytest.raises(NotReady, match=told):
        identity(BackboneSpec(name=LAION, path=str(tmp_path / name)))


def test_weights_of_another_size_than_the_name_says_are_refused(
    tmp_path: Path, tiny: str, clip: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(TINY.replace("depth: 3", "depth: 4"))

    with pytest.raises(NotReady, match=r"must hold a model of depth 4, but .* has 3"):
        OpenClip(BackboneSpec(name=str(other), path=str(clip)))


@pytest.mark.parametrize(
    ("part", "key", "value", "told"),
    [
        ("vision_cfg", "image_size", 48, "image_size must be 32, the backbone's, but is 48; name"),
        ("vision_cfg", "patch_size", 16, "patch_size must be 8, the backbone's, but is 16; name"),
        (None, "embed_dim", 24, "embed_dim must be 12, the backbone's, but is 24; name"),
        (None, "vision_cfg", [1], "must be a config as open_clip writes it, but has values of an"),
    ],
)
def test_config_of_another_architecture_is_refused_before_loading(
    tmp_path: Path, tiny: str, clip: Path, part: str | None, key: str, value: Any, told: str
) -> None:
    folder = shutil.copytree(clip, tmp_path / "weights" / "tiny")
    config = json.loads((clip / "open_clip_config.json").read_text())
    (config["model_cfg"][part] if part else config["model_cfg"])[key] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))

    with pytest.raises(NotReady, match=told) as caught:
        identity(BackboneSpec(name=tiny))

    assert str(caught.value).startswith(str(folder / "open_clip_config.json"))


def test_config_that_leaves_sizes_to_a_name_is_not_refused(
    tmp_path: Path, tiny: str, clip: Path
) -> None:
    folder = shutil.copytree(clip, tmp_path / "weights" / "tiny")
    config = {"vision_cfg": {"timm_model_name": "tiny", "image_size": [32, 48]}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))

    assert identity(BackboneSpec(name=tiny)).plugin == "openclip"


def test_legacy_preprocessing_is_a_setting_and_part_of_the_identity(clip: Path) -> None:
    plain = BackboneSpec(path=str(clip))
    legacy = BackboneSpec(path=str(clip), preprocessing="legacy")

    assert (OpenClip(legacy).mean, OpenClip(legacy).std) == (LEGACY, LEGACY)
    assert OpenClip(plain).mean != LEGACY
    assert identity(plain) != identity(legacy)


def test_identity_has_the_settings_that_decide_features(clip: Path) -> None:
    found = identity(BackboneSpec(path=str(clip))).settings

    assert isinstance(found["sizes"], dict)
    assert {"odd_sides", "read_out", "token_budget"} <= found["sizes"].keys()
    assert found["preprocessing"] == "model"


def test_a_read_out_that_a_backbone_has_not_is_refused(clip: Path) -> None:
    with pytest.raises(SpecError, match=r"must be one that openclip has.*use maskclip"):
        identity(BackboneSpec(path=str(clip), read_out="head"))


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"position_embedding": "rope"}, "but got 'rope'; use scale_factor or size"),
        ({"token_budget": 64}, "must be left out for openclip, which reads images of any size"),
    ],
)
def test_a_setting_that_a_backbone_has_not_is_refused(
    clip: Path, setting: dict[str, Any], told: str
) -> None:
    with pytest.raises(SpecError, match=told):
        sizes(BackboneSpec(path=str(clip), **setting))


def test_a_key_that_a_data_file_must_not_have_is_named(tmp_path: Path) -> None:
    path = tmp_path / "typo.yaml"
    path.write_text(TINY.replace("heads:", "head:"))

    with pytest.raises(SparBenchError, match="must have known keys, but has 'head'"):
        sizes(BackboneSpec(name=str(path)))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'openclip-b16-laion2b'"):
        identity(BackboneSpec(name="openclip-b16-laion"))


@pytest.mark.parametrize(("rule", "grid_hw"), [("floor", (5, 8)), ("pad", (6, 9))])
def test_odd_sides_are_dropped_or_padded(clip: Path, rule: Any, grid_hw: tuple[int, int]) -> None:
    backbone = OpenClip(BackboneSpec(path=str(clip), odd_sides=rule))
    image = images(45, 70)
    whole = torch.zeros(1, 3, 48, 72)
    whole[:, :, :45, :70] = image
    expected = whole[:, :, : grid_hw[0] * 8, : grid_hw[1] * 8]

    with torch.no_grad():
        found = backbone.features(image)

    assert found.shape[-2:] == grid_hw == backbone.sizes.grid_hw((45, 70))
    with torch.no_grad():
        assert torch.equal(found, backbone.features(expected))


def test_odd_sides_are_stretched(clip: Path) -> None:
    backbone = OpenClip(BackboneSpec(path=str(clip), odd_sides="stretch"))
    image = images(45, 70)
    stretched = torch.nn.functional.interpolate(image, size=(48, 72), mode="bicubic")

    with torch.no_grad():
        assert torch.equal(backbone.features(image), backbone.features(stretched))


def test_a_config_of_preprocessing_wins_over_the_data_file(tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(clip, folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"] = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    path = tmp_path / "stated.yaml"
    path.write_text(TINY + "mean: [0, 0, 0]\nstd: [1, 1, 1]\n")

    backbone = OpenClip(BackboneSpec(name=str(path), path=str(folder)))

    assert (backbone.mean, backbone.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_an_empty_folder_of_the_name_counts_for_nothing(
    tmp_path: Path, tiny: str, clip: Path
) -> None:
    cached = in_hub_cache(tmp_path / "hub", "someone/tiny", clip)
    (tmp_path / "weights" / "tiny").mkdir(parents=True)

    assert weights_of(BackboneSpec(name=tiny)).path == cached


def test_a_cache_that_holds_no_weights_counts_for_nothing(
    tmp_path: Path, tiny: str, clip: Path
) -> None:
    cached = in_hub_cache(tmp_path / "hub", "someone/tiny", clip)
    (cached / "open_clip_model.safetensors").unlink()

    with pytest.raises(NotReady, match="its weights must be in"):
        weights_of(BackboneSpec(name=tiny))


@pytest.mark.parametrize(
    ("found", "changed"),
    [("heads: 2", "heads: 4"), ("read_out: maskclip", "read_out: maskclip\nmean: [0, 0, 0]")],
)
def test_what_a_data_file_states_is_part_of_the_identity(
    tmp_path: Path, clip: Path, tiny: str, found: str, changed: str
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(TINY.replace(found, changed))

    identities = [identity(BackboneSpec(name=name, path=str(clip))) for name in (tiny, str(other))]

    assert identities[0] != identities[1]


@pytest.mark.parametrize(
    ("found", "wrong", "told"),
    [
        ("patch_px: 8\n", "", "patch_px: must be given, but got nothing; add it"),
        ("heads: 2", "heads: 0", "heads: must be above 0, but got 0; raise it"),
        ("heads: 2", "heads: 2\nodd_sides: foo", "odd_sides: .*but got 'foo'"),
        ("heads: 2", "heads: 2\nmean: 0.5", "mean: .*but got 0.5"),
        (
            "read_out: maskclip",
            "read_out: head_patch_tokens",
            "head_depth: must be the number of "
            "blocks in the head that head_patch_tokens reads, but is left out; add it",
        ),
        ("heads: 2", "heads: 2\nread_outs: [maskclip, head_patch_tokens]", "head_depth: must be "),
        ("heads: 2", "heads: 2\nread_outs: [maskclip, other]", "read_out: .*but got 'other'"),
    ],
)
def test_a_value_that_makes_no_sense_in_a_data_file_is_one_line(
    tmp_path: Path, found: str, wrong: str, told: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(TINY.replace(found, wrong))

    with pytest.raises(SparBenchError, match=told) as caught:
        sizes(BackboneSpec(name=str(path))), card(str(path))
    assert "\n" not in str(caught.value)


def test_the_embedded_weights_are_no_others() -> None:
    for other in ({"weights": "random"}, {"path": "/weights"}):
        with pytest.raises(SpecError, match="must be left out for patchwork"):
            sizes(BackboneSpec.model_validate({"name": "patchwork", **other}))


def test_a_backbone_without_text_is_not_ready_to_be_scored() -> None:
    require_text(BackboneSpec(name=LAION))
    with pytest.raises(NotReady, match="dinov3-b16: must have a text tower"):
        require_text(BackboneSpec(name="dinov3-b16"))


def test_a_repository_that_the_hub_cannot_have_is_a_mistake_of_the_data_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TINY.replace("someone/tiny", "https://huggingface.co/laion/clip"))

    with pytest.raises(
        DataFileError, match=r"mine\.yaml: hub: string should match .* but got 'htt"
    ):
        weights_of(BackboneSpec(name=str(path)))
