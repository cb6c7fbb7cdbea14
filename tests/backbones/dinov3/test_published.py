"""DINOv3 and dino.txt as published: names and shapes of their weights, and one at true size."""

import json
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F

from spar_bench import registry
from spar_bench.backbones._dinotxt import DinoTxt
from spar_bench.backbones.dinov3txt import Backbone as DinoV3Txt
from spar_bench.components.backbone import card, known_sizes
from spar_bench.components.flops import encoder_flops
from spar_bench.run.cost import TOLERANCE, count_encoder_flops
from spar_bench.spec.schema import BackboneSpec
from tests.backbones.dinov3 import reference, tiny
from tests.backbones.proofs import CLOSE, distance

NAMES = ["dinov3-s16", "dinov3-s16plus", "dinov3-b16", "dinov3-l16", "dinov3-h16plus"]


def published_keys() -> dict[str, list[int]]:
    path = registry.data_file("backbones", "dinov3txt-l16")
    assert path is not None
    keys: dict[str, list[int]] = json.loads(path.with_name("dinov3txt-l16_keys.json").read_text())
    return keys


def test_published_keys_are_those_of_the_model_definition() -> None:
    keys = {name: tuple(shape) for name, shape in published_keys().items()}

    assert keys == tiny.dinotxt_shapes(1024, 2752, 2, 1280, 24)


def test_published_keys_are_the_modules() -> None:
    keys = {name: tuple(shape) for name, shape in published_keys().items()}

    with torch.device("meta"):
        state = DinoTxt(published_keys()).state_dict()

    assert {name: tuple(value.shape) for name, value in state.items()} == keys


@pytest.mark.parametrize("name", [*NAMES, "dinov3txt-l16"])
def test_stated_sizes_are_those_of_timms_model(name: str) -> None:
    stated = card(name)
    sizes = known_sizes(BackboneSpec(name=name))

    on_cpu = partial(torch.linspace, device="cpu")  # timm 1.0.20 asks for its values
    with torch.device("meta"), mock.patch.object(torch, "linspace", on_cpu):
        model: Any = timm.create_model(stated.model)

    block = model.blocks[0]
    mlp = sum(layer.weight.numel() for layer in block.mlp.children() if hasattr(layer, "weight"))
    assert model.patch_embed.proj.weight.shape == (sizes.width, 3, sizes.patch_px, sizes.patch_px)
    assert (len(model.blocks), block.attn.num_heads) == (sizes.depth, sizes.heads)
    assert (model.num_prefix_tokens, sizes.channels) == (sizes.prefix_tokens, sizes.width)
    assert mlp == 2 * sizes.mlp_ratio * sizes.width**2
    assert (stated.mean, stated.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert sizes.odd_sides == "stretch"
    assert sizes.image_px == 384


@pytest.mark.slow
def test_published_size_is_found_and_reads_as_the_formulas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dinov3txt-l16"
    folder.mkdir()
    trunk = tiny.metas(tiny.draw(tiny.trunk_shapes(1024, 24, 16)))
    dinotxt = tiny.draw(tiny.dinotxt_shapes(1024, 2752, 2, 1280, 24))
    torch.save(trunk, folder / "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth")
    name = "dinov3_vitl16_dinotxt_vision_head_and_text_encoder-a442d8f5.pth"
    torch.save(dinotxt, folder / name)
    monkeypatch.setenv("SPAR_BENCH_WEIGHTS", str(tmp_path))
    image, ids = torch.randn(1, 3, 56, 96), [49406, 2677, 49407]

    backbone = DinoV3Txt(BackboneSpec(name="dinov3txt-l16"))
    with torch.no_grad():
        found = backbone.features(image)
    words = backbone.encode_text(["tree"])[0]

    assert distance(found, reference.features(trunk, image)) < CLOSE
    assert open_clip.tokenize(["tree"])[0, :3].tolist() == ids
    assert distance(words, F.normalize(reference.text_halves(dinotxt, ids)[1], dim=0)) < CLOSE
    for image_hw in ((384, 384), (500, 640)):
        expected = encoder_flops(backbone.sizes, image_hw)
        assert count_encoder_flops(backbone, image_hw) == pytest.approx(expected, rel=TOLERANCE)
