"""DINOv3 with dino.txt: a small one against plain formulas in float64, and what trains in it."""

from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench.backbones.base import Backbone
from spar_bench.backbones.dinov3 import Backbone as DinoV3
from spar_bench.backbones.dinov3txt import Backbone as DinoV3Txt
from spar_bench.components.flops import encoder_flops
from spar_bench.errors import SparBenchError, SpecError
from spar_bench.run.cost import TOLERANCE, count_encoder_flops
from spar_bench.run.inference import sliding_window
from spar_bench.run.trainable import set_trainable
from spar_bench.spec.schema import BackboneSpec
from spar_bench.store import Store
from spar_bench.testing import BackboneContract
from tests.backbones.dinov3 import reference, tiny
from tests.backbones.dinov3.tiny import load, spec
from tests.backbones.proofs import CLOSE, distance, one_step
from tests.backbones.sliding_reference import teacher
from tests.run.tiny import plan_of, scheduler, settings, write_photographs

SIZES_HW = [(32, 32), (24, 40), (64, 16), (8, 8), (43, 61)]


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

    assert distance(found, reference.features(trunk, images)) < CLOSE


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

    assert distance(found, reference.features(trunk, images, dinotxt)) < CLOSE


@pytest.mark.parametrize(("stride_px", "r"), [(32, 1), (16, 1), (12, 2), (6, 4)])
@pytest.mark.parametrize("image_hw", [(40, 56), (43, 61), (24, 48)])
def test_teacher_is_windows_read_one_by_one(
    backbone: DinoV3Txt,
    trunk: dict[str, Tensor],
    image_hw: tuple[int, int],
    stride_px: int,
    r: int,
) -> None:
    image = torch.randn(3, *image_hw)

    found = sliding_window(backbone, image[None], window_px=32, stride_px=stride_px)[0]

    looped = teacher(
        lambda window: reference.features(trunk, window[None])[0],
        reference.stretched(image, 8),
        patch_px=8,
        window_px=32,
        stride_px=stride_px,
        r=r,
    )
    assert distance(found, looped) < CLOSE


@pytest.mark.parametrize("prompt", ["a photo of a car.", "A  TREE &amp; traffic-light", ""])
def test_text_is_the_half_for_patches(
    backbone: DinoV3Txt, dinotxt: dict[str, Tensor], prompt: str
) -> None:
    clip_ids = open_clip.tokenize([prompt])[0].tolist()  # the vocabulary is CLIP's
    ids = clip_ids[: clip_ids.index(49407) + 1]

    found = backbone.encode_text([prompt, "a much longer prompt, which comes beside it."])[0]

    _, expected = reference.text_halves(dinotxt, ids)
    assert distance(found, F.normalize(expected, dim=0)) < CLOSE


def test_prompt_over_the_context_is_cut_and_ended(
    backbone: DinoV3Txt, dinotxt: dict[str, Tensor]
) -> None:
    ids = [49406, *open_clip.tokenize(["tree " * 75])[0].tolist()[1:76], 49407]

    found = backbone.encode_text(["tree " * 90])[0]

    _, expected = reference.text_halves(dinotxt, ids)
    assert distance(found, F.normalize(expected, dim=0)) < CLOSE


@pytest.mark.parametrize("read_out", ["patch_tokens", "head_patch_tokens"])
def test_one_step_of_the_last_two_blocks_is_the_one_spelled_out(small: Path, read_out: str) -> None:
    backbone = load(small, read_out=read_out)
    has_head = read_out == "head_patch_tokens"
    blocks = tuple(f"{'trunk.' if has_head else ''}blocks.{index}." for index in (1, 2))

    def features(state: dict[str, Tensor], images: Tensor) -> Tensor:
        trunk, head = tiny.metas_names(state)
        return reference.features(trunk, images, head if has_head else None)

    images = torch.randn(1, 3, 16, 32)  # timm takes positions in float32: these are exact there

    step = one_step(backbone, images, features, blocks)

    assert step.n_trained == 2 * 13
    assert step.least > 9e-4
    assert step.error < 1e-9


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


def test_legacy_preprocessing_is_one_half(small: Path, backbone: DinoV3Txt) -> None:
    assert backbone.mean == (0.485, 0.456, 0.406)
    legacy = load(small, preprocessing="legacy")
    assert legacy.mean == legacy.std == (0.5, 0.5, 0.5)


def test_vision_alone_reads_the_same_and_has_no_text(
    tmp_path: Path, small: Path, trunk: dict[str, Tensor]
) -> None:
    stated = tiny.CARD.replace("plugin: dinov3txt", "plugin: dinov3")
    (tmp_path / "vision.yaml").write_text(stated)
    name, path = str(tmp_path / "vision.yaml"), str(small / "weights" / tiny.TRUNK_FILE)
    backbone, images = DinoV3(BackboneSpec(name=name, path=path)), torch.randn(1, 3, 24, 40)

    with torch.no_grad():
        found = backbone.features(images)

    assert distance(found, reference.features(trunk, images)) < CLOSE
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


def test_a_whole_trial_is_made_of_it(tmp_path: Path, small: Path) -> None:
    photographs = write_photographs(tmp_path / "photographs")
    asked = settings(small, photographs, backbone=spec(small).model_dump())
    plan = plan_of(asked)
    store = Store(tmp_path / "store")
    made, _ = scheduler(plan, store)

    made.make(plan.stages)

    assert made.reasons == {}
    scores = {
        row.method: found.summary["miou"]
        for row in plan.trials[0].rows
        if (found := store.find(plan.stages[row.evaluate])) is not None
    }
    assert scores.keys() == {"pretrained", "teacher", "student"}
