"""SigLIP2's dense read-out: spelled out from a state dict alone, and open_clip's own output."""

from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spar_bench import registry
from spar_bench.backbones import siglip2
from spar_bench.backbones.base import Backbone, Library
from spar_bench.backbones.siglip2 import Backbone as SigLip2
from spar_bench.backbones.siglip2 import pool_values
from spar_bench.components.backbone import card, known_sizes
from spar_bench.components.flops import encoder_flops
from spar_bench.components.open_clip_io import OpenClipModel
from spar_bench.components.weights import Weights
from spar_bench.errors import NotReady, SpecError
from spar_bench.run.cost import count_encoder_flops
from spar_bench.run.inference import sliding_window
from spar_bench.session.exchange import _difference, _write
from spar_bench.spec.schema import BackboneSpec
from spar_bench.store import Store
from spar_bench.testing import BackboneContract
from tests.backbones import siglip_reference as reference
from tests.backbones.proofs import CLOSE, attend_in_every_place, distance, one_step, weights_of
from tests.backbones.sliding_reference import teacher
from tests.backbones.tiny_siglip import write_data_file, write_folder
from tests.backbones.towers import NAMES, hollow
from tests.run.tiny import plan_of, scheduler, settings, write_photographs

SIGLIP2 = [name for name in NAMES if registry.plugin("backbones", name) == "siglip2"]
HW = [(16, 16), (24, 16), (8, 20), (4, 64), (15, 22), (33, 17)]
"""Native; other grids, one with as many tokens as the native; sides not a multiple of the patch."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's folder, as open_clip saves one, and its data file."""
    folder = write_folder(tmp_path_factory.mktemp("siglip2") / "tiny", "tiny_siglip")
    write_data_file(folder.parent / "tiny.yaml", "siglip2")
    return folder


def load(folder: Path, **spec: Any) -> SigLip2:
    return SigLip2(BackboneSpec(name=str(folder.parent / "tiny.yaml"), path=str(folder), **spec))


@pytest.fixture
def backbone(folder: Path) -> SigLip2:
    """The miniature."""
    return load(folder)


def test_positions_of_another_size_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", "tiny_siglip")
    write_data_file(tmp_path / "tiny.yaml", "siglip2")
    path = folder / "open_clip_model.safetensors"
    save_file({**load_file(path), "visual.trunk.pos_embed": torch.zeros(1, 36, 24)}, path)

    with pytest.raises(NotReady) as caught:
        load(folder)

    assert str(caught.value) == (
        f"{path}: visual.trunk.pos_embed must be of shape (1, 16, 24), but is of shape "
        "(1, 36, 24); name other weights, or the backbone they belong to"
    )


class TestContract(BackboneContract):
    @pytest.fixture
    def backbone(self, folder: Path) -> Backbone:
        return load(folder)


def expected(state: reference.State, image: Tensor, *, by_size: bool = True) -> Tensor:
    embed = partial(reference.embed_by_convolution, by_size=by_size)
    return reference.encode(state, image, embed=embed)


@pytest.mark.parametrize("image_hw", HW)
@pytest.mark.parametrize("rule", ["size", "scale_factor"])
def test_features_are_those_spelled_out(folder: Path, image_hw: tuple[int, int], rule: str) -> None:
    backbone, images = load(folder, position_embedding=rule), torch.randn(2, 3, *image_hw)

    with torch.no_grad():
        found = backbone.features(images)

    state = weights_of(backbone)
    for features, image in zip(found, images, strict=True):
        assert distance(features, expected(state, image, by_size=rule == "size")) < CLOSE


def test_the_two_rules_for_positions_differ_except_on_the_native_grid(folder: Path) -> None:
    sized, scaled = load(folder), load(folder, position_embedding="scale_factor")
    native, wide = torch.randn(1, 3, 16, 16), torch.randn(1, 3, 16, 28)

    with torch.no_grad():
        assert torch.equal(sized.features(native), scaled.features(native))
        assert not torch.allclose(sized.features(wide), scaled.features(wide), atol=1e-3)


def test_rule_that_a_table_of_positions_has_not_is_refused(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"position_embedding: must be one that .* but got 'rope'"):
        load(folder, position_embedding="rope")


@pytest.mark.parametrize(("window_px", "stride_px", "r"), [(16, 16, 1), (16, 8, 1), (12, 6, 2)])
@pytest.mark.parametrize("image_hw", [(24, 36), (27, 18), (8, 30)])
def test_teacher_is_a_loop_over_windows(
    backbone: SigLip2, image_hw: tuple[int, int], window_px: int, stride_px: int, r: int
) -> None:
    image = torch.randn(3, *image_hw)

    found = sliding_window(backbone, image[None], window_px=window_px, stride_px=stride_px)[0]

    height, width = (-side % 4 for side in image_hw)
    padded = F.pad(image.double(), (0, width, 0, height))
    one = partial(expected, weights_of(backbone))
    looped = teacher(one, padded, patch_px=4, window_px=window_px, stride_px=stride_px, r=r)
    assert distance(found, looped) < CLOSE


def test_one_step_of_the_last_two_blocks_is_the_one_spelled_out(backbone: SigLip2) -> None:
    blocks = ("trunk.blocks.1.", "trunk.blocks.2.")

    step = one_step(
        backbone,
        torch.randn(1, 3, 20, 28),
        lambda state, images: expected(state, images[0])[None],
        blocks,
    )

    assert step.n_trained == 24
    assert step.least > 9e-4
    assert step.error < 1e-9


def test_parts_are_all_but_the_final_norm_and_the_pooling_head(backbone: SigLip2) -> None:
    parts = backbone.parts()
    named = {id(value): name for name, value in backbone.visual.named_parameters()}

    chosen = {named[id(p)] for block in parts.blocks for p in block}
    chosen |= {named[id(p)] for p in parts.position_embedding + parts.patch_embedding}

    assert {name.split(".")[1] for name in set(named.values()) - chosen} == {"norm", "attn_pool"}
    assert [len(part) for part in (parts.attention[0], parts.mlp[0])] == [6, 6]
    assert len(parts.position_embedding) == 1
    assert len(parts.patch_embedding) == 2


def test_pooled_where_the_head_attends_it_is_open_clips_own_output(
    backbone: SigLip2, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randn(2, 3, 16, 16)

    monkeypatch.setattr(siglip2, "pool_values", attend_in_every_place)
    with torch.no_grad():
        found = backbone.features(images)
        model: Any = backbone.model
        own = model.encode_image(images)

    assert distance(found[:, :, 1, 2], own.double()) < CLOSE


def test_prompts_are_embedded_as_open_clip_does(folder: Path, backbone: SigLip2) -> None:
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    prompts = ["A photo of a CAR.", "tree"]

    with torch.no_grad():
        own = F.normalize(model.encode_text(tokenizer(prompts)), dim=1)

    assert tokenizer(prompts)[0].tolist() == [3, 4, 5, 3, 6, 1, 0, 0]
    assert torch.allclose(backbone.encode_text(prompts), own, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_that_of_timms_own_forward(backbone: SigLip2, dtype: torch.dtype) -> None:
    trunk: Any = backbone.visual.trunk
    images = torch.randn(2, 3, 16, 16)

    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        found = backbone.features(images)
        dense = pool_values(trunk.attn_pool, trunk.forward_features(images))

    assert torch.equal(found, dense.transpose(1, 2).reshape(found.shape))
    assert found.dtype == dtype


def test_preprocessing_is_a_mean_and_deviation_of_a_half(backbone: SigLip2) -> None:
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)


def test_student_is_distilled_and_evaluated_on_sides_that_are_no_whole_patches(
    tmp_path: Path, folder: Path
) -> None:
    plan = plan_of(
        settings(
            folder,
            write_photographs(tmp_path / "photographs"),
            backbone={"name": str(folder.parent / "tiny.yaml"), "path": str(folder)},
            teacher={"window_px": 16, "stride_px": 6},
            evaluate__short_side_px=[42],
        )
    )
    store = Store(tmp_path / "store")
    making, notes = scheduler(plan, store)

    making.make(plan.stages)

    assert notes.kinds("failed") == notes.kinds("blocked") == []
    assert sorted(notes.kinds("made")) == sorted(stage.kind for stage in plan.stages.values())
    made = {stage.kind: store.find(stage) for stage in plan.stages.values()}
    assert made["evaluate"] is not None
    assert made["student"] is not None
    assert 0 < made["evaluate"].summary["miou"] < 1


@pytest.mark.parametrize("library", ["open_clip", "timm"])
def test_other_libraries_read_what_is_exported(
    tmp_path: Path, backbone: SigLip2, library: Library
) -> None:
    _move(backbone)

    exported = backbone.export(library)
    _write(exported, tmp_path / "folder", {})

    assert _difference(backbone, exported, tmp_path / "folder") < 1e-6
    files = {path.name for path in (tmp_path / "folder").iterdir()}
    assert ("tokenizer.json" in files) == (library == "open_clip")


def test_checkpoint_of_the_authors_is_read_by_its_names(backbone: SigLip2) -> None:
    own = backbone.visual.state_dict()
    released = {f"segmentor.net.model.visual.{name}": value for name, value in own.items()}
    released["segmentor.net.model.logit_scale"] = torch.ones(())

    found = backbone.from_checkpoint(released)

    assert found.keys() == own.keys()
    assert all(found[name] is released[f"segmentor.net.model.visual.{name}"] for name in own)


def _move(backbone: SigLip2) -> None:
    """Train a little, so that an export of the initial weights would be noticed."""
    with torch.no_grad():
        for parameter in backbone.visual.parameters():
            parameter.mul_(1.01)


@pytest.mark.parametrize("trunk", ["tiny_siglip_with_a_class_token", "tiny_naflex"])
def test_trunks_that_the_read_out_does_not_fit_are_refused(tmp_path: Path, trunk: str) -> None:
    folder = write_folder(tmp_path / "odd", trunk)
    write_data_file(tmp_path / "tiny.yaml", "siglip2")

    with pytest.raises(NotReady, match="must hold a timm SigLIP ViT"):
        load(folder, weights="random")


def test_folder_of_another_size_is_refused(tmp_path: Path, folder: Path) -> None:
    data = write_data_file(tmp_path / "wide.yaml", "siglip2", depth=4)

    with pytest.raises(NotReady, match=r"must hold a model of depth 4, but .* has 3"):
        SigLip2(BackboneSpec(name=str(data), path=str(folder)))


@pytest.mark.parametrize("name", SIGLIP2)
def test_stated_sizes_are_those_of_open_clips_model(name: str) -> None:
    sizes, tower = known_sizes(BackboneSpec(name=name)), hollow(name)

    shapes = {key: tuple(value.shape) for key, value in tower.state_dict().items()}
    width, hidden = sizes.width, int(sizes.width * sizes.mlp_ratio)
    n_native = (sizes.image_px // sizes.patch_px) ** 2
    assert shapes["trunk.pos_embed"] == (1, n_native, width)
    assert shapes["trunk.patch_embed.proj.weight"] == (width, 3, sizes.patch_px, sizes.patch_px)
    assert shapes["trunk.attn_pool.mlp.fc1.weight"] == (hidden, width)
    assert shapes[f"trunk.blocks.{sizes.depth - 1}.mlp.fc1.weight"] == (hidden, width)
    assert f"trunk.blocks.{sizes.depth}.mlp.fc1.weight" not in shapes
    assert shapes["trunk.attn_pool.proj.weight"] == (sizes.channels, width)
    assert len(shapes) == 12 * sizes.depth + 18
    assert sizes == hollow_backbone(name, tower).sizes


@pytest.mark.parametrize("image_hw", [(512, 512), (300, 500)])
@pytest.mark.parametrize("name", ["siglip2-b16-512", "siglip2-l16-256", "siglip2-so400m14-378"])
def test_closed_form_of_flops_is_what_torch_counts(name: str, image_hw: tuple[int, int]) -> None:
    backbone = hollow_backbone(name, hollow(name))

    assert count_encoder_flops(backbone, image_hw) == encoder_flops(backbone.sizes, image_hw)


def hollow_backbone(name: str, tower: nn.Module) -> SigLip2:
    """Build a backbone around an image tower that has shapes and no values."""
    spec, model = BackboneSpec(name=name), nn.Module()
    model.visual = tower
    return SigLip2(spec, OpenClipModel(model, Weights(None, is_random=True), card(name).model))
