"""What a backbone in a spec stands for, found once, weights present or not."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from spar_bench.components.backbone import card, identity, known_sizes, text_identity
from spar_bench.errors import NotReady, UnknownName
from spar_bench.resolve import Resolver
from spar_bench.spec.schema import BackboneSpec
from tests.components.data_files import LAION
from tests.components.hub import nowhere

__all__ = ["nowhere"]


def test_backbone_whose_weights_are_there_has_an_identity() -> None:
    spec = BackboneSpec(name="patchwork")

    resolver = Resolver(provisional=True)

    found = resolver.backbone(spec)

    assert (found.display_name, found.random_weights, resolver.missing) == ("patchwork", False, [])
    assert found.identity == identity(spec).model_dump(mode="json")
    assert found.sizes == known_sizes(spec)
    assert found.text_sizes is not None
    assert (found.text_sizes.width, found.text_sizes.context) == (64, 24)
    assert (card("patchwork").license, found.interpolation) == ("Apache-2.0", "bilinear")


def test_backbone_whose_weights_are_missing_says_so_and_has_sizes() -> None:
    resolver, spec = Resolver(provisional=True), BackboneSpec(name=LAION)

    found = resolver.backbone(spec)

    assert found.identity == {"provisional": spec.model_dump(mode="json")} == found.text_identity
    assert found.sizes.width == 768
    [line] = resolver.missing
    assert line.startswith(f"backbone {LAION}: its weights must be in ")


def test_random_weights_are_a_property_and_not_a_part_of_the_name() -> None:
    found = Resolver().backbone(BackboneSpec(name=LAION, weights="random"))

    assert (found.display_name, found.random_weights) == (LAION, True)
    assert found.identity["files"] == {"random": 0}


def test_identity_of_a_text_tower_leaves_out_how_images_are_read(clip: Path) -> None:
    plain, other = (
        identity(BackboneSpec(path=str(clip), position_embedding=rule)) for rule in (None, "size")
    )

    assert plain != other
    assert text_identity(plain) == text_identity(other)


def test_architecture_is_what_the_config_builds_and_not_the_weights(
    clip: Path, tmp_path: Path
) -> None:
    same, other = tmp_path / "same", tmp_path / "other"
    for folder in (same, other):
        shutil.copytree(clip, folder)
    weights = load_file(clip / "open_clip_model.safetensors")
    others = {name: one + 1 for name, one in weights.items()}
    save_file(others, same / "open_clip_model.safetensors")
    config = json.loads((other / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (other / "open_clip_config.json").write_text(json.dumps(config))

    own, as_own, quick = (
        Resolver().backbone(BackboneSpec(path=str(folder))) for folder in (clip, same, other)
    )

    assert own.identity != as_own.identity
    assert own.architecture == as_own.architecture != quick.architecture
    provisional = Resolver(provisional=True).backbone(BackboneSpec(name=LAION))
    random = Resolver().backbone(BackboneSpec(name=LAION, weights="random"))
    assert provisional.architecture
    assert random.architecture


def test_identity_is_json_and_back(clip: Path) -> None:
    found = identity(BackboneSpec(path=str(clip)))

    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_nothing_is_resolved_without_sizes_or_a_known_name() -> None:
    with pytest.raises(NotReady, match="needs the folder of its weights"):
        Resolver(provisional=True).backbone(BackboneSpec(name="openclip"))
    with pytest.raises(UnknownName):
        Resolver().backbone(BackboneSpec.model_construct(name="openclipp", path=None))
