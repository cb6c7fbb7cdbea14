"""DINOv3 with dino.txt: a small one against plain formulas in float64, and the published sizes."""

import json
from functools import partial
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any
from unittest import mock

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import spar_bench as sb
from spar_bench import backbones, registry
from spar_bench.backbones._dinotxt import DinoTxt
from spar_bench.backbones.base import Backbone
from spar_bench.backbones.dinov3 import Backbone as DinoV3
from spar_bench.backbones.dinov3txt import Backbone as DinoV3Txt
from spar_bench.errors import NotReady, SparBenchError, SpecError
from spar_bench.plan.cost import encoder_flops
from spar_bench.run.cost import TOLERANCE, count_encoder_flops
from spar_bench.run.inference import sliding_window
from spar_bench.run.trainable import set_trainable
from spar_bench.session.exchange import import_student
from spar_bench.spec.schema import BackboneSpec
from spar_bench.store import Store
from spar_bench.testing import BackboneContract
from spar_bench.windows import origins, upsample_factor
from tests.backbones import dinov3_reference as plain
from tests.run.tiny import executor, plan_of, settings, write_photographs

CLOSE = 1e-5
"""Largest relative error in float32."""
NAMES = ["dinov3-s16", "dinov3-s16plus", "dinov3-b16", "dinov3-l16", "dinov3-h16plus"]
SIZES_HW = [(32, 32), (24, 40), (64, 16), (8, 8), (43, 61)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small backbone: its data file, its keys, and its weights."""
    return plain.write(tmp_path_factory.mktemp("dinov3txt"))


@pytest.fixture(scope="module")
def trunk(small: Path) -> dict[str, Tensor]:
    """The trunk's weights, by Meta's names."""
    state: dict[str, Tensor] = torch.load(small / "weights" / plain.TRUNK_FILE, weights_only=True)
    return state


@pytest.fixture(scope="module")
def dinotxt(small: Path) -> dict[str, Tensor]:
    """The weights of vision head and text tower."""
    state: dict[str, Tensor] = torch.load(small / "weights" / plain.TEXT_FILE, weights_only=True)
    return state


def spec(small: Path, **more: Any) -> BackboneSpec:
    return BackboneSpec(
        **{"name": str(small / "small.yaml"), "path": str(small / "weights"), **more}
    )


def load(small: Path, **more: Any) -> DinoV3Txt:
    return DinoV3Txt(spec(small, **more))


@pytest.fixture(scope="module")
def backbone(small: Path) -> DinoV3Txt:
    """The small backbone, loaded once for what leaves it as it is."""
    return load(small)


@pytest.fixture(scope="module")
def with_head(small: Path) -> DinoV3Txt:
    """The small backbone, read through its vision head."""
    return load(small, read_out="head_patch_tokens")


def error(found: Tensor, expected: Tensor) -> float:
    """Return the relative error of what was found."""
    assert found.shape == expected.shape
    return float((found.double() - expected).norm() / expected.norm())


class TestContract(BackboneContract):
    pass


class TestContractOfHead(BackboneContract):
    @pytest.fixture
    def backbone(self, with_head: Backbone) -> Backbone:
        return with_head


@pytest.mark.parametrize("image_hw", SIZES_HW)
def test_features_are_the_trunks_patch_tokens(
    backbone: DinoV3Txt, trunk: dict[str, Tensor], image_hw: tuple[int, int]
) -> None:
    images = torch.randn(2, 3, *image_hw)

    with torch.no_grad():
        found = backbone.features(images)

    assert error(found, plain.features(trunk, images)) < CLOSE


@pytest.mark.parametrize("image_hw", [(32, 32), (24, 40), (43, 61)])
def test_features_of_the_head_are_its_patch_tokens(
    with_head: DinoV3Txt,
    trunk: dict[str, Tensor],
    dinotxt: dict[str, Tensor],
    image_hw: tuple[int, int],
) -> None:
    images = torch.randn(2, 3, *image_hw)

    with torch.no_grad():
        found = with_head.features(images)

    assert error(found, plain.features(trunk, images, dinotxt)) < CLOSE


def by_loops(trunk: dict[str, Tensor], image: Tensor, stride_px: int) -> Tensor:
    """Read windows of 32 pixels one by one; average what overlaps; resample to the patch grid."""
    r = upsample_factor(plain.PATCH_PX, stride_px)
    cell = plain.PATCH_PX // r
    rows, columns = (-(-side // plain.PATCH_PX) for side in image.shape[-2:])
    down = plain.bicubic(image.shape[-2], rows * plain.PATCH_PX)
    across = plain.bicubic(image.shape[-1], columns * plain.PATCH_PX)
    whole = down @ image.double() @ across.T
    total = torch.zeros(plain.WIDTH, rows * r, columns * r, dtype=torch.float64)
    counts = torch.zeros(rows * r, columns * r)
    for top in origins(whole.shape[-2], 32, stride_px):
        for left in origins(whole.shape[-1], 32, stride_px):
            window = whole[None, :, top : top + 32, left : left + 32]
            large = F.interpolate(plain.features(trunk, window), scale_factor=r, mode="bilinear")[0]
            y, x = top // cell, left // cell
            total[:, y : y + large.shape[1], x : x + large.shape[2]] += large
            counts[y : y + large.shape[1], x : x + large.shape[2]] += 1
    return F.interpolate((total / counts)[None], size=(rows, columns), mode="bilinear")[0]


@pytest.mark.parametrize("stride_px", [32, 16, 12, 6])
@pytest.mark.parametrize("image_hw", [(40, 56), (43, 61), (24, 48)])
def test_teacher_is_windows_read_one_by_one(
    backbone: DinoV3Txt, trunk: dict[str, Tensor], image_hw: tuple[int, int], stride_px: int
) -> None:
    image = torch.randn(3, *image_hw)

    found = sliding_window(backbone, image[None], window_px=32, stride_px=stride_px)[0]

    assert error(found, by_loops(trunk, image, stride_px)) < CLOSE


@pytest.mark.parametrize("prompt", ["a photo of a car.", "A  TREE &amp; traffic-light", ""])
def test_text_is_the_half_for_patches(
    backbone: DinoV3Txt, dinotxt: dict[str, Tensor], prompt: str
) -> None:
    clip_ids = open_clip.tokenize([prompt])[0].tolist()  # the vocabulary is CLIP's
    ids = clip_ids[: clip_ids.index(49407) + 1]

    found = backbone.encode_text([prompt, "a much longer prompt, which comes beside it."])[0]

    _, expected = plain.text_halves(dinotxt, ids)
    assert error(found, F.normalize(expected, dim=0)) < CLOSE


def test_prompt_over_the_context_is_cut_and_ended(
    backbone: DinoV3Txt, dinotxt: dict[str, Tensor]
) -> None:
    ids = [49406, *open_clip.tokenize(["tree " * 75])[0].tolist()[1:76], 49407]

    found = backbone.encode_text(["tree " * 90])[0]

    _, expected = plain.text_halves(dinotxt, ids)
    assert error(found, F.normalize(expected, dim=0)) < CLOSE


@pytest.mark.parametrize("read_out", ["patch_tokens", "head_patch_tokens"])
def test_a_step_changes_what_trains_and_lowers_the_loss(small: Path, read_out: str) -> None:
    backbone, images = load(small, read_out=read_out), torch.randn(1, 3, 24, 40)
    target = torch.randn(1, plain.WIDTH, 3, 5)
    before = {name: value.clone() for name, value in backbone.visual.state_dict().items()}
    optimiser = torch.optim.SGD(set_trainable(backbone, "last_2_blocks"), lr=1e-3)

    losses = []
    for _ in range(2):
        loss = F.mse_loss(backbone.features(images), target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())

    after = backbone.visual.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    trained = ("trunk." if read_out == "head_patch_tokens" else "") + "blocks."
    assert changed == {k for k in before if k.startswith((f"{trained}1.", f"{trained}2."))}
    assert losses[1] < losses[0]


def test_all_that_encodes_an_image_trains(small: Path) -> None:
    for read_out in ("patch_tokens", "head_patch_tokens"):
        backbone = load(small, read_out=read_out)

        parameters = set_trainable(backbone, "all")
        backbone.features(torch.randn(1, 3, 24, 40)).square().mean().backward()  # type: ignore[no-untyped-call]

        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


def test_positions_have_nothing_to_train(small: Path) -> None:
    with pytest.raises(SpecError, match="position_embedding matches none; choose another part"):
        set_trainable(load(small), "position_embedding")


def test_other_rule_for_positions_is_refused(small: Path) -> None:
    with pytest.raises(SpecError, match=r"must be one that .* has, but got 'size'; use rope"):
        load(small, position_embedding="size")


def test_timms_file_reads_as_metas(
    tmp_path: Path,
    small: Path,
    backbone: DinoV3Txt,
    trunk: dict[str, Tensor],
    dinotxt: dict[str, Tensor],
) -> None:
    ours = plain.timms({k: v for k, v in trunk.items() if k in plain.trunk_shapes()})
    save_file(ours, tmp_path / "model.safetensors")
    torch.save(dinotxt, tmp_path / plain.TEXT_FILE)
    images = torch.randn(1, 3, 24, 40)

    with torch.no_grad():
        found = load(small, path=str(tmp_path)).features(images)
        expected = backbone.features(images)

    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("file", "name", "change", "told"),
    [
        (plain.TRUNK_FILE, "norm.bias", None, r"norm\.bias must be of shape \(128,\), but is abs"),
        (plain.TRUNK_FILE, "more", (3,), r"more must be absent, but is of shape \(3,\)"),
        (plain.TRUNK_FILE, "cls_token", (1, 1, 64), r"\(1, 1, 128\), but is of shape \(1, 1, 64\)"),
        (
            plain.TRUNK_FILE,
            "blocks.1.attn.qkv.bias",
            (384,),
            r"qkv\.bias is not zero, as it is in",
        ),
        (
            plain.TRUNK_FILE,
            "patch_embed.proj.weight",
            (128, 3, 4, 4),
            r"but is of shape \(128, 3, 4",
        ),
        (plain.TEXT_FILE, "logit_scale", None, r"logit_scale must be of shape \(1,\), but is abs"),
        (plain.TEXT_FILE, "text_model.more", (3,), r"text_model\.more must be absent"),
    ],
)
def test_weights_that_are_not_the_models_are_refused_by_name(
    tmp_path: Path, small: Path, file: str, name: str, change: Any, told: str
) -> None:
    for path in (small / "weights").iterdir():
        state = torch.load(path, weights_only=True)
        if path.name == file:
            state.pop(name, None)
            state |= {} if change is None else {name: torch.ones(change)}
        torch.save(state, tmp_path / path.name)

    with pytest.raises(NotReady, match=told) as caught:
        load(small, path=str(tmp_path))

    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)


def test_folder_without_the_second_file_is_not_ready(tmp_path: Path, small: Path) -> None:
    copyfile(small / "weights" / plain.TRUNK_FILE, tmp_path / plain.TRUNK_FILE)

    with pytest.raises(NotReady, match=r"logit_scale must be of shape \(1,\), but is absent"):
        load(small, path=str(tmp_path))


def test_two_trunks_in_a_folder_are_refused(tmp_path: Path, small: Path) -> None:
    copytree(small / "weights", tmp_path, dirs_exist_ok=True)
    save_file(plain.draw({"norm.weight": (plain.WIDTH,)}, 7), tmp_path / "other.safetensors")

    with pytest.raises(NotReady, match=r"trunk\.pth: must be the only file with norm\.weight"):
        load(small, path=str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02cos\nsystem\n."])
def test_file_that_cannot_be_read_is_said_in_one_line(
    tmp_path: Path, small: Path, content: bytes
) -> None:
    for name in (plain.TRUNK_FILE, plain.TEXT_FILE):
        (tmp_path / name).write_bytes(content)

    with pytest.raises(NotReady, match=r"\.pth: must be a file of weights that can") as caught:
        load(small, path=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_trunk_under_a_trainers_key_is_read(tmp_path: Path, small: Path) -> None:
    copytree(small / "weights", tmp_path, dirs_exist_ok=True)
    trunk = torch.load(tmp_path / plain.TRUNK_FILE, weights_only=True)
    torch.save({"model": trunk, "epoch": 3}, tmp_path / plain.TRUNK_FILE)
    images = torch.randn(1, 3, 24, 40)

    found, expected = load(small, path=str(tmp_path)), load(small)

    with torch.no_grad():
        assert torch.equal(found.features(images), expected.features(images))


def test_random_weights_are_the_same_each_time(small: Path) -> None:
    images = torch.randn(1, 3, 24, 40)
    before = torch.get_rng_state()

    first, second = (load(small, weights="random", path=None) for _ in range(2))

    with torch.no_grad():
        assert torch.equal(first.features(images), second.features(images))
    assert torch.equal(first.encode_text(["tree"]), second.encode_text(["tree"]))
    assert torch.equal(torch.get_rng_state(), before)


def test_legacy_preprocessing_is_one_half(small: Path, backbone: DinoV3Txt) -> None:
    assert backbone.mean == (0.485, 0.456, 0.406)
    assert load(small, preprocessing="legacy").std == (0.5, 0.5, 0.5)


def test_vision_alone_reads_the_same_and_has_no_text(small: Path, trunk: dict[str, Tensor]) -> None:
    stated = plain.CARD.replace("plugin: dinov3txt", "plugin: dinov3")
    (small / "vision.yaml").write_text(stated)
    name, path = str(small / "vision.yaml"), str(small / "weights" / plain.TRUNK_FILE)
    backbone, images = DinoV3(BackboneSpec(name=name, path=path)), torch.randn(1, 3, 24, 40)

    with torch.no_grad():
        found = backbone.features(images)

    assert error(found, plain.features(trunk, images)) < CLOSE
    with pytest.raises(SparBenchError, match=r"DINOv3 alone has none; .* as a library$"):
        backbone.encode_text(["tree"])


@pytest.mark.parametrize("which", ["backbone", "with_head"])
@pytest.mark.parametrize("image_hw", [(32, 32), (43, 61)])
def test_closed_form_agrees_with_the_counter(
    request: pytest.FixtureRequest, image_hw: tuple[int, int], which: str
) -> None:
    backbone: DinoV3Txt = request.getfixturevalue(which)

    counted = count_encoder_flops(backbone, image_hw)

    assert counted == pytest.approx(encoder_flops(backbone.sizes, image_hw), rel=TOLERANCE)


def test_papers_checkpoint_is_the_student_it_holds(tmp_path: Path, small: Path) -> None:
    trunk = plain.metas(plain.draw(plain.trunk_shapes(), seed=5))
    dinotxt: dict[str, Tensor] = torch.load(small / "weights" / plain.TEXT_FILE, weights_only=True)
    whole = {f"visual_model.backbone.{name}": tensor for name, tensor in trunk.items()} | dinotxt
    state = {f"segmentor.net.model.{name}": tensor for name, tensor in whole.items()}
    torch.save({"state_dict": state}, tmp_path / "spar.ckpt")
    images = torch.randn(1, 3, 24, 40)

    for read_out in ("patch_tokens", "head_patch_tokens"):
        student = import_student(
            tmp_path / "spar.ckpt", spec(small, read_out=read_out), store=tmp_path / "store"
        )
        with torch.no_grad():
            found = sb.load_backbone(student.folder).features(images)

        head = dinotxt if read_out == "head_patch_tokens" else None
        assert error(found, plain.features(trunk, images, head)) < CLOSE


def test_checkpoint_of_another_model_is_refused(backbone: DinoV3Txt) -> None:
    with pytest.raises(KeyError, match="it lacks 'cls_token', under any prefix"):
        backbone.from_checkpoint({"visual.proj": torch.zeros(3)})


def test_export_is_read_by_timm_with_the_periods_rounded(
    tmp_path: Path, backbone: DinoV3Txt, with_head: DinoV3Txt
) -> None:
    exported, images = backbone.export("timm"), torch.randn(1, 3, 32, 32)
    save_file(exported.state, tmp_path / exported.weights_name)
    (tmp_path / exported.config_name).write_text(json.dumps(exported.config))

    with torch.no_grad():
        theirs, ours = exported.check(tmp_path, images)

    assert torch.allclose(theirs, ours, rtol=1e-5, atol=1e-6)
    assert "bfloat16" in exported.config["pretrained_cfg"]["notes"][0]
    for refused, library in ((backbone, "open_clip"), (with_head, "timm")):
        with pytest.raises(SparBenchError, match="only timm has DINOv3's trunk"):
            refused.export(library)  # type: ignore[arg-type]


def test_a_whole_trial_is_made_of_it(tmp_path: Path, small: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs")
    asked = settings(small, photographs, backbone=spec(small).model_dump())
    plan = plan_of(asked)
    store = Store(tmp_path / "store")
    made, _ = executor(plan, store)

    made.make(plan.stages)

    assert made.reasons == {}
    scores = {
        arm.method: found.summary["miou"]
        for arm in plan.trials[0].arms
        if (found := store.find(plan.stages[arm.evaluate])) is not None
    }
    assert scores.keys() == {"pretrained", "teacher", "student"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("model: vit_base_patch16_224", "model: must be one of timm's DINOv3, but got 'vit_base_"),
        ("model: vit_wide_dinov3", "model: must be one of timm's DINOv3, but got 'vit_wide_dino"),
        ("", r"other_keys\.json: must list the weights of dino\.txt with their shapes, but"),
    ],
)
def test_data_file_that_cannot_be_built_is_refused(
    tmp_path: Path, small: Path, change: str, told: str
) -> None:
    stated = plain.CARD.replace("model: vit_small_patch16_dinov3", change) if change else plain.CARD
    (tmp_path / "other.yaml").write_text(stated)

    with pytest.raises(SparBenchError, match=told) as caught:
        load(small, name=str(tmp_path / "other.yaml"))
    assert "\n" not in str(caught.value)


def published_keys() -> dict[str, list[int]]:
    path = registry.data_file("backbones", "dinov3txt-l16")
    assert path is not None
    keys: dict[str, list[int]] = json.loads(path.with_name("dinov3txt-l16_keys.json").read_text())
    return keys


def test_published_keys_are_those_of_the_model_definition() -> None:
    keys = {name: tuple(shape) for name, shape in published_keys().items()}

    assert keys == plain.dinotxt_shapes(1024, 2752, 2, 1280, 24)


def test_published_keys_are_the_modules() -> None:
    keys = {name: tuple(shape) for name, shape in published_keys().items()}

    with torch.device("meta"):
        state = DinoTxt(published_keys()).state_dict()

    assert {name: tuple(value.shape) for name, value in state.items()} == keys


@pytest.mark.parametrize("name", [*NAMES, "dinov3txt-l16"])
def test_stated_sizes_are_those_of_timms_model(name: str) -> None:
    stated = backbones.card(name)
    sizes = backbones.known_sizes(BackboneSpec(name=name))

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
    trunk = plain.metas(plain.draw(plain.trunk_shapes(1024, 24, 16)))
    dinotxt = plain.draw(plain.dinotxt_shapes(1024, 2752, 2, 1280, 24))
    torch.save(trunk, folder / "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth")
    name = "dinov3_vitl16_dinotxt_vision_head_and_text_encoder-a442d8f5.pth"
    torch.save(dinotxt, folder / name)
    monkeypatch.setenv("SPAR_BENCH_WEIGHTS", str(tmp_path))
    image, ids = torch.randn(1, 3, 56, 96), [49406, 2677, 49407]

    backbone = DinoV3Txt(BackboneSpec(name="dinov3txt-l16"))
    with torch.no_grad():
        found = backbone.features(image)
    words = backbone.encode_text(["tree"])[0]

    assert error(found, plain.features(trunk, image)) < CLOSE
    assert open_clip.tokenize(["tree"])[0, :3].tolist() == ids
    assert error(words, F.normalize(plain.text_halves(dinotxt, ids)[1], dim=0)) < CLOSE
    for image_hw in ((384, 384), (500, 640)):
        expected = encoder_flops(backbone.sizes, image_hw)
        assert count_encoder_flops(backbone, image_hw) == pytest.approx(expected, rel=TOLERANCE)
