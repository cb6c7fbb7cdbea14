"""Which parameters train, on the embedded backbone; none found is an error."""

from dataclasses import replace

import pytest

from spar_bench.backbones.base import Parts
from spar_bench.backbones.patchwork import Backbone as Patchwork
from spar_bench.errors import SpecError
from spar_bench.run.trainable import set_trainable
from spar_bench.spec.schema import BackboneSpec


@pytest.fixture(scope="module")
def backbone() -> Patchwork:
    """The embedded backbone, five blocks deep."""
    return Patchwork(BackboneSpec(name="patchwork"))


@pytest.mark.parametrize(
    ("trainable", "n_params"),
    [
        # A block of width 128: ln 2 x 256, attention 4 x 128^2 + 4 x 128, MLP 8 x 128^2 + 5 x 128.
        ("last_1_blocks", 512 + 4 * 128**2 + 512 + 8 * 128**2 + 640),
        ("last_2_blocks", 2 * (512 + 4 * 128**2 + 512 + 8 * 128**2 + 640)),
        ("attention_of_last_3_blocks", 3 * (256 + 4 * 128**2 + 512)),
        ("mlp_of_last_1_blocks", 256 + 8 * 128**2 + 640),
        ("position_embedding", 65 * 128),
        ("patch_embedding", 128 * 3 * 64),
    ],
)
def test_part_has_the_parameters_that_its_shapes_say(
    backbone: Patchwork, trainable: str, n_params: int
) -> None:
    chosen = set_trainable(backbone, trainable)

    assert sum(parameter.numel() for parameter in chosen) == n_params
    free = [p for p in backbone.visual.parameters() if p.requires_grad]
    assert {id(p) for p in free} == {id(p) for p in chosen}


def test_all_is_the_image_tower_and_nothing_else(backbone: Patchwork) -> None:
    chosen = set_trainable(backbone, "all")

    assert {id(p) for p in chosen} == {id(p) for p in backbone.visual.parameters()}


def test_more_blocks_than_there_are_is_an_error(backbone: Patchwork) -> None:
    with pytest.raises(SpecError, match="at most 5 blocks of this backbone, but got last_6_blocks"):
        set_trainable(backbone, "last_6_blocks")


@pytest.mark.parametrize("trainable", ["position_embedding", "mlp_of_last_2_blocks"])
def test_part_without_parameters_is_an_error(
    backbone: Patchwork, monkeypatch: pytest.MonkeyPatch, trainable: str
) -> None:
    empty: list[list[object]] = [[] for _ in range(5)]
    parts: Parts = replace(backbone.parts(), position_embedding=[], mlp=empty)  # type: ignore
    monkeypatch.setattr(backbone, "parts", lambda: parts)

    with pytest.raises(SpecError, match=f"{trainable} matches none; choose another part"):
        set_trainable(backbone, trainable)
