"""The embedded backbone: the contract, and a text tower that refuses unknown words."""

from typing import Any

import pytest

from spar_bench.backbones.base import Backbone
from spar_bench.backbones.patchwork import Backbone as Patchwork
from spar_bench.components.backbone import known_sizes
from spar_bench.errors import SparBenchError
from spar_bench.patchwork.classes import CLASSES
from spar_bench.spec.schema import BackboneSpec
from spar_bench.testing import BackboneContract

SPEC = BackboneSpec(name="patchwork")


@pytest.fixture(scope="module")
def embedded() -> Patchwork:
    """The embedded backbone, loaded once."""
    return Patchwork(SPEC)


class TestContract(BackboneContract):
    @pytest.fixture
    def backbone(self) -> Backbone:
        return Patchwork(SPEC)

    @pytest.fixture
    def prompts(self) -> list[str]:
        return [f"a photo of a {names[0]}." for names in CLASSES[:2]]


def test_stated_sizes_are_those_of_the_model(embedded: Patchwork) -> None:
    sizes = known_sizes(SPEC)
    visual: Any = embedded.visual

    assert embedded.sizes == sizes
    assert visual.conv1.weight.shape == (sizes.width, 3, sizes.patch_px, sizes.patch_px)
    assert visual.image_size == (sizes.image_px, sizes.image_px)
    blocks = visual.transformer.resblocks
    assert len(blocks) == sizes.depth
    assert blocks[0].attn.num_heads == sizes.heads
    assert blocks[0].mlp.c_fc.out_features == sizes.width * sizes.mlp_ratio
    assert visual.proj.shape == (sizes.width, sizes.channels)


def test_word_that_it_was_never_taught_is_refused(embedded: Patchwork) -> None:
    with pytest.raises(SparBenchError, match="words that it was trained on, but got 'zebra'"):
        embedded.encode_text(["a photo of a zebra."])
