"""SigLIP2 NaFlex: spelled out from a state dict alone, timm's own output, and the token budget."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from spar_bench.backbones import naflex, siglip2
from spar_bench.backbones.base import Backbone, Library, fit_sides
from spar_bench.backbones.naflex import Backbone as NaFlex
from spar_bench.components.backbone import card, identity, known_sizes
from spar_bench.components.flops import encoder_flops
from spar_bench.components.open_clip_io import OpenClipModel
from spar_bench.components.sizes import Sizes
from spar_bench.components.weights import Weights
from spar_bench.errors import NotReady, SpecError
from spar_bench.run.cost import count_encoder_flops
from spar_bench.run.inference import sliding_window
from spar_bench.run.trainable import set_trainable
from spar_bench.session.exchange import _difference, _write
from spar_bench.spec.schema import BackboneSpec
from spar_bench.testing import BackboneContract
from tests.backbones import siglip_reference as reference
from tests.backbones.proofs import CLOSE, attend_in_every_place, distance, weights_of
from tests.backbones.sliding_reference import teacher
from tests.backbones.tiny_siglip import model_config, write_data_file, write_folder
from tests.backbones.towers import hollow

BUDGET = 64
NAME = "siglip2-b16-naflex"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder and its data file; open_clip knows its architecture by name."""
    root = tmp_path_factory.mktemp("naflex")
    folder = write_folder(root / "tiny", "tiny_naflex")
    stated = {"model": "tiny-naflex", "token_budget": BUDGET}
    write_data_file(root / "tiny.yaml", "naflex", **stated)
    config = model_config("tiny_naflex")
    (root / "tiny-naflex.json").write_text(json.dumps(config))
    open_clip.add_model_config(root / "tiny-naflex.json")
    return folder


def load(folder: Path, **spec: Any) -> NaFlex:
    return NaFlex(BackboneSpec(name=str(folder.parent / "tiny.yaml"), path=str(folder), **spec))


@pytest.fixture
def backbone(folder: Path) -> NaFlex:
    """The miniature."""
    return load(folder)


class TestContract(BackboneContract):
    @pytest.fixture
    def backbone(self, folder: Path) -> Backbone:
        return load(folder)


def spelled_out(state: reference.State, image: Tensor) -> Tensor:
    gelu = partial(F.gelu, approximate="tanh")
    return reference.encode(state, image, embed=reference.embed_by_product, activation=gelu)


def expected(backbone: Backbone, image: Tensor) -> Tensor:
    return spelled_out(weights_of(backbone), image)


@pytest.mark.parametrize(
    "image_hw", [(16, 16), (24, 16), (8, 12), (4, 64), (12, 84), (15, 22), (33, 17)]
)
def test_features_are_those_spelled_out(backbone: NaFlex, image_hw: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *image_hw)

    with torch.no_grad():
        found = backbone.features(images)

    for features, image in zip(found, images, strict=True):
        assert distance(features, expected(backbone, image)) < CLOSE


@pytest.mark.parametrize("image_hw", [(16, 16), (24, 20), (8, 32)])
def test_pooled_where_the_head_attends_it_is_timms_own_output(
    backbone: NaFlex, monkeypatch: pytest.MonkeyPatch, image_hw: tuple[int, int]
) -> None:
    images = torch.randn(2, 3, *image_hw)
    rows, columns = image_hw[0] // 4, image_hw[1] // 4
    patches = F.unfold(images, 4, stride=4).reshape(2, 3, 16, -1).permute(0, 3, 2, 1).flatten(2)
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).expand(2, -1, -1)
    valid = torch.ones(2, rows * columns, dtype=torch.bool)
    model: Any = backbone.model
    trunk = model.visual.trunk

    monkeypatch.setattr(siglip2, "pool_values", attend_in_every_place)
    with torch.no_grad():
        found = backbone.features(images)[:, :, 1, 2]
        of_images = model.encode_image(images)
        of_patches = trunk(patches, patch_coord=places, patch_valid=valid)

    assert distance(found, of_images.double()) < CLOSE
    assert distance(found, of_patches.double()) < CLOSE


@pytest.mark.parametrize(("window_px", "stride_px", "r"), [(16, 16, 1), (16, 8, 1), (12, 6, 2)])
def test_teacher_is_a_loop_over_windows(
    backbone: NaFlex, window_px: int, stride_px: int, r: int
) -> None:
    image = torch.randn(3, 27, 18)

    found = sliding_window(backbone, image[None], window_px=window_px, stride_px=stride_px)[0]

    padded = F.pad(image.double(), (0, 2, 0, 1))
    one = partial(expected, backbone)
    looped = teacher(one, padded, patch_px=4, window_px=window_px, stride_px=stride_px, r=r)
    assert distance(found, looped) < CLOSE


@pytest.mark.parametrize("trainable", ["position_embedding", "patch_embedding", "last_2_blocks"])
def test_gradients_are_those_spelled_out(backbone: NaFlex, trainable: str) -> None:
    backbone.visual.double()
    image = torch.randn(3, 20, 28).double()
    trained = set_trainable(backbone, trainable)

    backbone.features(image[None]).square().mean().backward()  # type: ignore[no-untyped-call]

    named = dict(backbone.visual.named_parameters())
    names = [name for name, value in named.items() if value.requires_grad]
    state = {k: v.detach().clone().requires_grad_(k in names) for k, v in named.items()}
    mean = spelled_out(state, image).square().mean()
    gradients = torch.autograd.grad(mean, [state[name] for name in names])
    assert len(trained) == len(names) > 0
    for name, gradient in zip(names, gradients, strict=True):
        own = named[name].grad
        assert own is not None
        assert torch.allclose(own, gradient, rtol=1e-8, atol=1e-10), name


def sizes(budget: int | None) -> Sizes:
    known = known_sizes(BackboneSpec(name=NAME, token_budget=budget))
    assert known.token_budget == (budget or 40_000)
    return known


@pytest.mark.parametrize("budget", [1, 7, 64, 1000])
@pytest.mark.parametrize("image_hw", [(16, 16), (321, 117), (100, 1000), (2, 900), (640, 640)])
def test_beyond_the_budget_the_longest_side_that_fits_is_taken(
    budget: int, image_hw: tuple[int, int]
) -> None:
    known = sizes(budget)

    scaled_hw, grid_hw = known.scaled_hw(image_hw), known.grid_hw(image_hw)

    fitting = []
    for longer in range(1, max(image_hw) + 1):
        hw = [max(int(side * longer / max(image_hw) + 0.5), 1) for side in image_hw]
        grid = [-(-side // 16) for side in hw]
        if grid[0] * grid[1] <= budget:
            fitting.append((tuple(hw), tuple(grid)))
    assert (scaled_hw, grid_hw) == fitting[-1]
    assert known.whole_hw(image_hw) == (16 * grid_hw[0], 16 * grid_hw[1])
    assert known.grid_hw(known.whole_hw(image_hw)) == grid_hw


@pytest.mark.parametrize(
    ("image_hw", "grid_hw"),
    [((1448, 2896), (91, 181)), ((2172, 4344), (136, 272)), ((4096, 4096), (200, 200))],
)
def test_the_default_budget_takes_every_frame_of_the_papers_resolution_figure(
    image_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> None:
    assert sizes(None).grid_hw(image_hw) == grid_hw


def test_beyond_the_budget_the_image_is_scaled_down_and_then_padded(folder: Path) -> None:
    backbone, image = load(folder, token_budget=12), torch.randn(1, 3, 30, 45)

    with torch.no_grad():
        found = backbone.features(image)

    smaller = F.interpolate(image, size=(11, 16), mode="bilinear", antialias=True)
    assert backbone.sizes.scaled_hw((30, 45)) == (11, 16)
    assert found.shape[-2:] == (3, 4)
    assert torch.equal(fit_sides(image, backbone.sizes), F.pad(smaller, (0, 0, 0, 1)))
    assert distance(found[0], expected(backbone, smaller[0])) < CLOSE


def test_budget_is_part_of_the_identity_and_no_others_to_set(folder: Path) -> None:
    named = BackboneSpec(name=str(folder.parent / "tiny.yaml"), path=str(folder))
    smaller = named.model_copy(update={"token_budget": 12})

    assert identity(named) != identity(smaller)
    with pytest.raises(SpecError, match="token_budget: must be left out for patchwork"):
        known_sizes(BackboneSpec(name="patchwork", token_budget=12))


def test_other_rule_for_positions_is_refused(folder: Path) -> None:
    with pytest.raises(SpecError, match="but got 'scale_factor'; use size"):
        load(folder, position_embedding="scale_factor")


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_config_with_keys_of_a_later_open_clip_is_no_hindrance(
    tmp_path: Path, folder: Path, ending: str
) -> None:
    later = write_folder(tmp_path / "later", "tiny_naflex")
    config = json.loads((later / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"] |= {"image_seq_len": 576, "image_size": 384}
    (later / "open_clip_config.json").write_text(json.dumps(config))
    if ending == ".bin":
        weights = later / "open_clip_model.safetensors"
        torch.save(load_file(weights), later / "open_clip_pytorch_model.bin")
        weights.unlink()
    spec = BackboneSpec(name=str(folder.parent / "tiny.yaml"), path=str(later))

    backbone = NaFlex(spec)

    assert backbone.sizes.image_px == 16
    own = load(folder)
    image = torch.randn(1, 3, 16, 24)
    assert torch.equal(backbone.features(image), own.features(image))
    assert torch.equal(backbone.encode_text(["a car"]), own.encode_text(["a car"]))


@pytest.mark.parametrize("library", ["open_clip", "timm"])
def test_other_libraries_read_what_is_exported(
    tmp_path: Path, backbone: NaFlex, library: Library
) -> None:
    with torch.no_grad():
        for parameter in backbone.visual.parameters():
            parameter.mul_(1.01)

    exported = backbone.export(library)
    _write(exported, tmp_path / "folder", {})

    assert _difference(backbone, exported, tmp_path / "folder") < 1e-6


def test_weights_alone_are_read_too_and_random_ones_stay_the_same(folder: Path) -> None:
    named, image = str(folder.parent / "tiny.yaml"), torch.randn(1, 3, 16, 24)
    file = BackboneSpec(name=named, path=str(folder / "open_clip_model.safetensors"))
    drawn = BackboneSpec(name=named, weights="random")

    with torch.no_grad():
        assert torch.equal(NaFlex(file).features(image), load(folder).features(image))
        assert torch.equal(NaFlex(drawn).features(image), NaFlex(drawn).features(image))
        assert not torch.equal(NaFlex(drawn).features(image), load(folder).features(image))


def test_trunk_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "odd", "tiny_siglip")
    (tmp_path / "odd-naflex.json").write_text(json.dumps(model_config("tiny_siglip")))
    open_clip.add_model_config(tmp_path / "odd-naflex.json")
    data = write_data_file(tmp_path / "tiny.yaml", "naflex", model="odd-naflex")

    with pytest.raises(NotReady, match="must hold a timm SigLIP NaFlex ViT"):
        NaFlex(BackboneSpec(name=str(data), path=str(folder)))


def test_architecture_is_b16s_text_tower_beside_timms_naflex_trunk() -> None:
    config = json.loads(naflex.CONFIG.read_text())
    b16 = open_clip.get_model_config("ViT-B-16-SigLIP2")

    shared = set(config["text_cfg"]) - {"hf_tokenizer_name"}
    assert {k: config["text_cfg"][k] for k in shared} == {k: b16["text_cfg"][k] for k in shared}
    assert config["vision_cfg"]["timm_model_name"] == "naflexvit_base_patch16_siglip"
    assert naflex.CONFIG.stem == card(NAME).model


@pytest.mark.parametrize("image_hw", [(256, 256), (300, 500), (3000, 2000)])
def test_closed_form_of_flops_is_what_torch_counts(image_hw: tuple[int, int]) -> None:
    model = nn.Module()
    model.visual = hollow(NAME)
    clip = OpenClipModel(model, Weights(None, is_random=True), card(NAME).model)
    backbone = NaFlex(BackboneSpec(name=NAME), clip)

    assert count_encoder_flops(backbone, image_hw) == encoder_flops(backbone.sizes, image_hw)
