"""Tokenizers that text towers need: found beside the weights or in the Hub's cache, or named."""

from pathlib import Path

import open_clip
import pytest
from safetensors.torch import save_file

from spar_bench import registry
from spar_bench.components.backbone import card, identity, require_backbone_tokenizer, weights_of
from spar_bench.components.open_clip_config import config_by_name
from spar_bench.components.open_clip_io import tokenizer
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec
from tests.backbones.tiny_siglip import write_data_file, write_folder, write_tokenizer
from tests.components.hub import in_hub_cache, nowhere
from tests.small import TINY, printed, spar_bench, write_spec

__all__ = ["nowhere"]

NAME, REPOSITORY = "siglip2-b16-512", "timm/ViT-B-16-SigLIP2-512"
RANDOM = BackboneSpec(name=NAME, weights="random")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The miniature's folder and its data file."""
    write_data_file(tmp_path / "tiny.yaml", "siglip2")
    return write_folder(tmp_path / "tiny", "tiny_siglip")


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A Hub cache that holds the tokenizer of NAME, and nothing else."""
    (tmp_path / "files").mkdir()
    write_tokenizer(tmp_path / "files")
    return in_hub_cache(tmp_path / "hub", REPOSITORY, tmp_path / "files")


def spec_of(folder: Path) -> BackboneSpec:
    return BackboneSpec(name=str(folder.parent / "tiny.yaml"), path=str(folder))


@pytest.mark.parametrize("weights", ["find", "random"])
@pytest.mark.parametrize(
    ("gone", "lacking"),
    [
        (["tokenizer.json"], "tokenizer.json"),
        (["tokenizer_config.json"], "tokenizer_config.json"),
        (["tokenizer.json", "tokenizer_config.json"], "tokenizer_config.json or tokenizer.json"),
    ],
)
def test_folder_without_a_tokenizer_is_not_ready(
    folder: Path, gone: list[str], lacking: str, weights: str
) -> None:
    spec = BackboneSpec.model_validate({**dict(spec_of(folder)), "weights": weights})
    require_backbone_tokenizer(spec)
    for name in gone:
        (folder / name).unlink()

    with pytest.raises(NotReady) as caught:
        require_backbone_tokenizer(spec)

    assert str(caught.value) == (
        f"{folder}: must hold its tokenizer's files beside the weights, but has no {lacking}; put "
        "those of beside there"
    )


def test_vocabulary_may_be_a_sentencepiece_model(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")

    require_backbone_tokenizer(spec_of(folder))


def test_random_weights_by_name_need_the_tokenizer_of_the_hubs_cache(cached: Path) -> None:
    require_backbone_tokenizer(RANDOM)
    (cached / "tokenizer.json").unlink()

    with pytest.raises(NotReady) as caught:
        require_backbone_tokenizer(RANDOM)

    assert str(caught.value) == (
        f"model ViT-B-16-SigLIP2-512: its tokenizer must be in the Hugging Face cache, but "
        f"{REPOSITORY} has no tokenizer.json there; `hf download {REPOSITORY} --include "
        "'*token*'` puts it there"
    )


def test_file_of_weights_needs_the_tokenizer_of_the_hubs_cache(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()

    with pytest.raises(NotReady, match=r"has no tokenizer_config\.json or tokenizer\.json there"):
        require_backbone_tokenizer(BackboneSpec(name=NAME, path=str(tmp_path / "w.safetensors")))


def test_clip_needs_no_tokenizer_of_the_hub(clip: Path) -> None:
    require_backbone_tokenizer(BackboneSpec(name="openclip-b16-laion2b", weights="random"))
    require_backbone_tokenizer(BackboneSpec(path=str(clip)))


def test_tokenizer_of_the_hubs_cache_is_part_of_the_identity(tmp_path: Path, cached: Path) -> None:
    first = identity(RANDOM).files

    assert first.keys() == {"random", "tokenizer.json", "tokenizer_config.json"}
    (cached / "tokenizer.json").write_text("{}")
    assert identity(RANDOM).files != first


def test_tokenizer_beside_the_weights_is_part_of_the_identity(folder: Path) -> None:
    first = identity(spec_of(folder))
    (folder / "config.json").write_text("{}")
    assert identity(spec_of(folder)) == first

    (folder / "tokenizer.json").write_text("{}")

    assert identity(spec_of(folder)) != first


def test_tokenizer_is_read_from_the_hubs_cache(cached: Path) -> None:
    found = tokenizer(weights_of(RANDOM), "ViT-B-16-SigLIP2-512")

    assert found(["a tree"])[0].tolist() == [3, 7, 1] + [0] * 61


def test_tokenizer_that_cannot_be_read_is_one_line(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    weights = weights_of(spec_of(folder))

    with pytest.raises(NotReady, match="must have a tokenizer that transformers reads") as caught:
        tokenizer(weights, "")
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(NotReady, match="must hold its tokenizer's files beside the weights"):
        tokenizer(weights, "")


def test_check_and_plan_name_a_missing_tokenizer(here: Path) -> None:
    spec = write_spec(
        TINY.replace("backbone: patchwork", f"backbone: {{name: {NAME}, weights: random}}")
    )

    checked = spar_bench("check", "--ready", spec, exits=2)
    planned = spar_bench("plan", spec)

    line = f"its tokenizer must be in the Hugging Face cache, but {REPOSITORY} has no tokenizer_co"
    assert "1 missing:" in checked.stdout
    assert line in checked.stdout
    assert line in planned.stdout


def test_backbones_tells_weights_without_a_tokenizer(tmp_path: Path, here: Path) -> None:
    path = tmp_path / "weights" / f"{NAME}.safetensors"
    path.parent.mkdir()
    save_file({}, path)

    lines = spar_bench("backbones").stdout.splitlines()

    [row] = [line for line in lines if line.startswith(NAME)]
    assert "no tokenizer" in row


@pytest.mark.parametrize(
    "name",
    [n for n in registry.names("backbones") if n.startswith(("siglip2-", "openclip-"))],
)
def test_config_by_name_is_open_clips(name: str) -> None:
    model = card(name).model

    expected = open_clip.get_model_config(model)
    assert config_by_name(model) == (expected or config_by_name("ViT-B-16-SigLIP2-naflex"))


def test_config_by_name_is_found_without_importing_open_clip() -> None:
    code = (
        "import sys; from spar_bench.components.open_clip_config import config_by_name as c\n"
        "assert c('ViT-B-16') and c('no such') is None\n"
        "print(*{'torch', 'open_clip', 'transformers'} & set(sys.modules))"
    )

    assert printed(code) == ""
