"""The recipe of the shipped students: what targets are, and that its steps repeat and resume."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import spar_bench as sb
from recipes.patchwork_students import shards, train
from recipes.patchwork_students.shards import draw_shard, n_scenes, posed, read_shard, unposed
from recipes.patchwork_students.train import CHECKPOINT_FILE, Recipe, Training, TrainReport
from spar_bench.backbones.patchwork import Backbone
from spar_bench.errors import Diverged, SparBenchError
from spar_bench.patchwork.scenes import draw_scene
from spar_bench.run.images import normalise
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stitching import resize_matrix

RECIPE = Recipe(shards=3, times=2, warm_up_steps=2)
SIZES_HW = ((64, 72), (72, 64))
WEIGHTS = "last_1_blocks.safetensors"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(BackboneSpec(name="patchwork"))


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two scenes, read in two steps; the validation scenes are read elsewhere."""
    for module in (shards, train):
        monkeypatch.setattr(module, "SIZES_HW", SIZES_HW)
        monkeypatch.setattr(module, "STEPS", 2)
    monkeypatch.setattr(shards, "_SHARD_PIXELS", 2 * 64 * 72)
    monkeypatch.setattr(
        train, "validation_miou", lambda _, strides, **__: [0.5, 0.75][: 1 + len(strides)]
    )
    monkeypatch.setattr(train, "_SAVE_EVERY", 1)


def scene(height: int = 96, width: int = 128) -> Tensor:
    return torch.from_numpy(draw_scene(5, (height, width))[0]).permute(2, 0, 1)


def target(backbone: Backbone, image: Tensor, *, scale: float = 1.0, pose: int = 0) -> Tensor:
    shards._axis.cache_clear()
    return shards.target(backbone, image, scale=scale, pose=pose)


def test_blurred_targets_are_the_teacher_s_features(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_BLUR", 1e9)
    image = scene()

    found = target(backbone, image)

    seen = normalise(image.float() / 255, backbone.mean, backbone.std)[None]
    expected = sb.sliding_window(backbone, seen, window_px=64, stride_px=18, upsample=4)[0]
    assert found.shape == (128, 12, 16)
    assert float((found - expected).norm() / expected.norm()) < 0.01  # of bfloat16


def test_unblurred_patches_are_a_least_squares_fit_of_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "_BLUR", 0.0)
    cells = np.random.default_rng(0).standard_normal((5 * 4, 3))

    found = shards._to_patches(5) @ cells

    expected, *_ = np.linalg.lstsq(resize_matrix(5, 5 * 4), cells, rcond=None)
    assert np.allclose(found, expected)


@pytest.mark.parametrize("pose", range(8))
def test_poses_are_undone(pose: int) -> None:
    maps = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))

    assert torch.equal(unposed(posed(maps, pose), pose), maps)
    assert {posed(maps, each).flatten()[0].item() for each in range(4)} == {
        maps[0, y, x].item() for y in (0, -1) for x in (0, -1)
    }


@pytest.mark.parametrize("pose", [3, 6])
def test_target_of_a_posed_reading_lies_where_the_image_has_it(
    backbone: Backbone, pose: int
) -> None:
    image = scene()

    found, straight = target(backbone, image, scale=1.2, pose=pose), target(backbone, image)

    similar = torch.cosine_similarity(found, straight, dim=0).mean()
    elsewhere = torch.cosine_similarity(found, straight.flip(-1), dim=0).mean()
    assert similar > 0.9 > elsewhere + 0.2


def test_shards_have_as_many_pixels_and_no_scene_twice() -> None:
    for index, (height, width) in enumerate(shards.SIZES_HW):
        pixels = n_scenes(index) * height * width
        assert 0.8 < pixels / shards._SHARD_PIXELS < 1.25
        assert n_scenes(index) % shards.STEPS == 0
        assert n_scenes(index) <= shards._MOST_SCENES


@pytest.mark.usefixtures("_small")
def test_shard_is_kept_and_is_the_same_each_time(backbone: Backbone, tmp_path: Path) -> None:
    drawn, kept = draw_shard(1, backbone), read_shard(tmp_path, 1, backbone)

    assert drawn.images.shape == (2, 3, 72, 64)
    assert drawn.targets.shape == (2, 128, 9, 8)
    assert drawn.targets.dtype == torch.float16
    assert all(torch.equal(*pair) for pair in zip(drawn, kept, strict=True))
    written = (tmp_path / "0001.safetensors").stat().st_mtime_ns
    read_shard(tmp_path, 1, backbone)
    assert (tmp_path / "0001.safetensors").stat().st_mtime_ns == written


def test_every_shard_is_taken_so_often_a_round_of_sizes_apart() -> None:
    recipe = Recipe(shards=30, times=3)
    taken = [recipe.taken(turn) for turn in range(recipe.rounds)]

    assert recipe.taken(recipe.rounds) == []
    for shard in range(30):
        assert [turn for turn, each in enumerate(taken) if shard in each] == [
            shard,
            shard + 12,
            shard + 24,
        ]


def run(output: Path, *, trainable: str = "last_1_blocks", recipe: Recipe = RECIPE) -> TrainReport:
    return train.train(output, trainable=trainable, recipe=recipe, on_progress=lambda line: None)


@pytest.mark.usefixtures("_small")
def test_resumed_training_equals_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Training.learn

    def interrupted(self: Training, images: Tensor, targets: Tensor) -> float:
        if self.step == 5:
            raise KeyboardInterrupt
        return learn(self, images, targets)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut")
    resumed, undisturbed = run(tmp_path / "cut"), run(tmp_path / "whole")

    assert resumed.curve == undisturbed.curve
    assert resumed.steps == RECIPE.shards * RECIPE.times * 2 == 12
    found, expected = (
        load_file(tmp_path / each / "last_1_blocks.safetensors") for each in ("cut", "whole")
    )
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.usefixtures("_small")
def test_student_is_the_tower_in_half_precision_and_only_its_part_has_moved(
    backbone: Backbone, tmp_path: Path
) -> None:
    report = run(tmp_path)

    tower, pretrained = (
        load_file(tmp_path / "last_1_blocks.safetensors"),
        backbone.visual.state_dict(),
    )
    assert tower.keys() == pretrained.keys()
    assert {value.dtype for value in tower.values()} == {torch.float16}
    moved = {n for n, value in pretrained.items() if not torch.equal(tower[n].float(), value)}
    assert moved
    assert all(".4." in name for name in moved)
    assert json.loads((tmp_path / train.REPORT_FILE).read_text())["miou"] == report.miou == 0.5
    assert (report.teacher_miou, report.images, report.passes) == (0.75, 6, 12)
    assert "mIoU 50.0 % in one pass, 75.0 % by windows" in str(report)


@pytest.mark.usefixtures("_small")
def test_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    run(tmp_path)

    with pytest.raises(SparBenchError, match=f"{CHECKPOINT_FILE}: must be of the same recipe"):
        run(tmp_path, trainable="all")


@pytest.mark.usefixtures("_small")
def test_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    state = Training("last_1_blocks", RECIPE)
    images, targets = (
        torch.zeros(1, 3, 64, 72, dtype=torch.uint8),
        torch.full((1, 128, 8, 9), torch.inf),
    )

    with pytest.raises(Diverged, match="at step 0; lower the learning rates"):
        state.learn(images, targets)


def test_learning_rate_rises_stays_and_falls() -> None:
    recipe = Recipe(shards=10, times=1, warm_up_steps=4, decay_share=0.5)
    state = Training("last_1_blocks", recipe)
    shares = []
    for state.step in range(160):
        shares.append(state.learning_rate_share())

    assert shares[:4] == [0.25, 0.5, 0.75, 1.0]
    assert set(shares[4:81]) == {1.0}
    assert shares[120] == pytest.approx(0.5)
    assert shares[159] == pytest.approx(1 / 80)
