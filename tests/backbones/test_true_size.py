"""SigLIP2 at true size with random weights, saved as open_clip saves them and found by path."""

import json
from functools import partial
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from spar_bench import registry
from spar_bench.backbones import siglip2
from spar_bench.components.flops import encoder_flops
from spar_bench.run.cost import TOLERANCE, count_encoder_flops
from spar_bench.spec.schema import BackboneSpec
from tests.backbones import siglip_reference as reference
from tests.backbones.proofs import CLOSE, attend_in_every_place, distance, weights_of
from tests.backbones.tiny_siglip import write_tokenizer
from tests.backbones.towers import config_of

pytestmark = pytest.mark.slow
READING: dict[str, dict[str, Any]] = {
    "siglip2-b16-512": {"embed": reference.embed_by_convolution, "activation": F.gelu},
    "siglip2-b16-naflex": {
        "embed": reference.embed_by_product,
        "activation": partial(F.gelu, approximate="tanh"),
    },
}


@pytest.fixture(scope="module", params=READING)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of 375 million random weights, its plug-in named by its data file."""
    folder, config = tmp_path_factory.mktemp("true_size"), config_of(request.param)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"})
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    write_tokenizer(folder)
    del model
    spec = BackboneSpec(name=request.param, path=str(folder))
    return request.param, registry.load("backbones", request.param)(spec)


def test_features_are_those_spelled_out(backbone: tuple[str, Any]) -> None:
    name, model = backbone
    image = torch.randn(3, 60, 112)

    with torch.no_grad():
        found = model.features(image[None])[0]

    sizes: dict[str, Any] = {"patch_px": 16, "depth": 12, "n_heads": 12}
    expected = reference.encode(weights_of(model), image, **READING[name], **sizes)
    assert found.shape == (768, 4, 7)
    assert distance(found, expected) < CLOSE


def test_pooled_where_the_head_attends_it_is_open_clips_own_output(
    backbone: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbone[1]
    side_px = model.sizes.image_px
    image = torch.randn(1, 3, side_px, side_px)

    monkeypatch.setattr(siglip2, "pool_values", attend_in_every_place)
    with torch.no_grad():
        found, own = model.features(image)[:, :, 3, 5], model.model.encode_image(image)

    assert distance(found, own.double()) < CLOSE


def test_prompts_are_embedded_as_open_clip_does(backbone: tuple[str, Any]) -> None:
    model = backbone[1]
    ids = torch.tensor([[3, 4, 5, 3, 6, 1, *[0] * 58], [7, 1, *[0] * 62]])

    with torch.no_grad():
        own = F.normalize(model.model.encode_text(ids), dim=1)

    assert torch.allclose(model.encode_text(["A photo of a CAR.", "tree"]), own, atol=1e-6)


def test_closed_form_of_flops_is_within_2_percent_of_the_counter(
    backbone: tuple[str, Any],
) -> None:
    model = backbone[1]

    for image_hw in ((512, 512), (1024, 2048)):
        closed = encoder_flops(model.sizes, image_hw)
        assert abs(count_encoder_flops(model, image_hw) - closed) <= TOLERANCE * closed
