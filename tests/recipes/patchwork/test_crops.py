"""Pictures and their tags: whole or collages, tags always match the pixels."""

import numpy as np
import pytest
import torch

from recipes.patchwork import crops
from recipes.patchwork.crops import Pool, draw_batch
from spar_bench.patchwork.classes import CLASSES
from spar_bench.patchwork.scenes import draw_scene, scene_seed


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool.draw(4)


def flat_pool() -> Pool:
    """Two scenes of one class and one grey each, so that a pixel's colour says its class."""
    labels = np.repeat(np.array([3, 9], np.uint8), 80 * 96).reshape(2, 80, 96)
    return Pool(np.repeat(labels[..., None], 3, axis=3), labels)


def grey(images: torch.Tensor) -> torch.Tensor:
    """Return the grey of pictures of `flat_pool`, the negatives undone."""
    return torch.where(images > 127, 255 - images, images)


def test_pool_begins_with_scenes_that_no_data_set_draws(pool: Pool) -> None:
    image, labels = draw_scene(scene_seed("pretrain", 0), (256, 320))

    assert np.array_equal(pool.images[0], image)
    assert np.array_equal(pool.labels[0], labels)
    assert pool.images.shape == (4, 256, 320, 3)


def test_pictures_keep_image_and_labels_together() -> None:
    images, labels = flat_pool().pictures(np.random.default_rng(0), 32)

    assert images.shape == (32, 64, 64, 3)
    seen = grey(torch.from_numpy(images))
    assert all((seen[..., channel].numpy() == labels).all() for channel in range(3))
    assert set(np.unique(labels)) == {3, 9}


@pytest.mark.parametrize("pose", range(8))
def test_poses_are_the_eight_rotations_and_mirror_images(pose: int) -> None:
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)

    posed = crops._posed(picture, pose)

    turned = [np.rot90(base, k) for base in (picture, picture[:, ::-1]) for k in range(4)]
    assert any(np.array_equal(posed, other) for other in turned)
    others = [crops._posed(picture, other) for other in range(8) if other != pose]
    assert not any(np.array_equal(posed, other) for other in others)


def test_every_region_is_tagged_with_what_its_own_pixels_show() -> None:
    batch = draw_batch(flat_pool(), np.random.default_rng(1), 64)

    label = grey(batch.images[:, 0])[:, ::8, ::8].flatten(1).long()
    assert batch.regions.shape == (64, 64)
    assert batch.tags.shape == (64, 4, len(CLASSES))
    for regions, labels, tags in zip(batch.regions, label, batch.tags, strict=True):
        for region in range(4):
            there = labels[regions == region]
            expected = torch.full((len(CLASSES),), torch.nan if len(there) == 0 else 0.0)
            expected[there] = 1
            assert torch.equal(tags[region].nan_to_num(-1), expected.nan_to_num(-1))


def test_some_pictures_are_whole_and_some_are_cut_each_way() -> None:
    regions = crops._cut(np.random.default_rng(0), 200)

    found = {tuple(np.unique(one)) for one in regions}
    assert found == {(0,), (0, 1), (0, 2), (0, 1, 2, 3)}
    sides = [int((one == 0).any(axis=axis).sum()) for one in regions for axis in (0, 1)]
    assert {min(sides), max(sides)} == {2, 8}


def test_class_that_covers_little_is_neither_tagged_nor_denied() -> None:
    labels = np.zeros((1, 64, 64), np.uint8)
    labels[0, :10, :10] = 1  # 100 of 4096 pixels, below 4 %
    labels[0, 32:, :] = 2

    tags = crops._tags(labels, np.zeros((1, 64, 64), np.intp))

    assert tags[0, 0, [0, 2, 3]].tolist() == [1, 1, 0]
    assert np.isnan(tags[0, 0, 1])
    assert np.isnan(tags[0, 1:]).all()
