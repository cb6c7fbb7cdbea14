"""Scenes: the same everywhere, with exact labels, of any size and varied scale."""

import hashlib
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest

from spar_bench.patchwork import scenes
from spar_bench.patchwork.classes import CLASSES, SHAPES, TEXTURES
from spar_bench.patchwork.patterns import SHAPE_DISTANCE, TEXTURE_MIX, wave
from spar_bench.patchwork.scenes import draw_scene, scene_seed

STREAMS: list[Literal["pretrain", "train", "val"]] = ["pretrain", "train", "val"]


def test_a_seed_draws_one_scene() -> None:
    first, again, other = draw_scene(3, (40, 56)), draw_scene(3, (40, 56)), draw_scene(4, (40, 56))

    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_scene_is_the_same_on_every_machine() -> None:
    image, labels = draw_scene(scene_seed("val", 0), (64, 96))

    assert hashlib.sha256(image.tobytes() + labels.tobytes()).hexdigest() == (
        "b9d5abeec2b2f051c17e481ea7f2a04af9079547d3cf051f91babc6dd1db821c"
    )


@pytest.mark.parametrize("image_hw", [(1, 1), (32, 40), (96, 33), (40, 1100)])
def test_scenes_have_any_size(image_hw: tuple[int, int]) -> None:
    image, labels = draw_scene(0, image_hw)

    assert image.shape == (*image_hw, 3)
    assert labels.shape == image_hw
    assert image.dtype == labels.dtype == np.uint8


def test_every_class_is_seen_in_a_few_scenes() -> None:
    labels = np.concatenate([draw_scene(seed, (96, 128))[1].ravel() for seed in range(40)])

    share = np.bincount(labels, minlength=len(CLASSES)) / labels.size

    assert len(share) == len(CLASSES) == len(TEXTURE_MIX) + len(SHAPE_DISTANCE)
    assert share.min() > 0.01
    assert share[len(TEXTURES) :].sum() == pytest.approx(0.26, abs=0.06)


def test_streams_share_no_seed() -> None:
    ends = [(scene_seed(stream, 0), scene_seed(stream, (1 << 32) - 1)) for stream in STREAMS]

    assert all(last < first for (_, last), (first, _) in pairwise(ends))
    with pytest.raises(ValueError, match="index must be"):
        scene_seed("train", 1 << 32)


def test_colour_is_no_clue_to_the_class() -> None:
    drawn = [draw_scene(seed, (64, 96)) for seed in range(60)]
    colour = np.concatenate([image.reshape(-1, 3) for image, _ in drawn]).astype(float)
    label = np.concatenate([labels.ravel() for _, labels in drawn])

    means = np.stack([colour[label == index].mean(axis=0) for index in range(len(CLASSES))])

    assert np.ptp(means, axis=0).max() < 80  # single scenes differ by 200 and more


def test_labels_of_a_shape_are_the_pixels_inside_its_outline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = np.zeros((40, 60, 3), np.float32)
    labels = np.zeros((40, 60), np.uint8)
    white = np.full(3, 255, np.float32)
    one = np.float32(1)
    disc = scenes._Shape(0, 18 * one, 30 * one, 9 * one, one, 0 * one, white)

    scenes._draw_shape(image, labels, disc)

    y, x = np.mgrid[:40, :60]
    inside = (y - 18) ** 2 + (x - 30) ** 2 < 81
    assert np.array_equal(labels == len(TEXTURES), inside)
    assert image[18, 30, 0] == pytest.approx(255)
    assert image[~inside].max() < 255 * 0.6  # softened over one pixel, no farther


def test_shape_may_leave_the_image_on_every_side() -> None:
    one = np.float32(1)
    for y, x in [(-3, 10), (10, -3), (43, 10), (10, 63), (-99, 10), (99, 10)]:
        labels = np.zeros((40, 60), np.uint8)
        shape = scenes._Shape(1, y * one, x * one, 8 * one, one, 0 * one, np.zeros(3, np.float32))

        scenes._draw_shape(np.zeros((40, 60, 3), np.float32), labels, shape)

        assert (labels > 0).any() == (-10 < y < 50)


@pytest.mark.parametrize("index", range(len(SHAPES)), ids=[names[0] for names in SHAPES])
def test_outlines_enclose_much_of_the_unit_disc_and_nothing_far_out(index: int) -> None:
    v, u = (axis.astype(np.float32) for axis in np.mgrid[-2:2:80j, -2:2:80j])

    inside = SHAPE_DISTANCE[index](u, v) < 0

    area = inside.mean() * 16
    assert 1.2 < area < 3.2
    assert not inside[u * u + v * v > 1.3**2].any()


def test_outlines_differ_from_each_other() -> None:
    v, u = (axis.astype(np.float32) for axis in np.mgrid[-1:1:60j, -1:1:60j])

    inside = [outline(u, v) < 0 for outline in SHAPE_DISTANCE]

    for i, a in enumerate(inside):
        assert all((a & b).sum() / (a | b).sum() < 0.85 for b in inside[:i])


@pytest.mark.parametrize("index", range(len(TEXTURES)), ids=[names[0] for names in TEXTURES])
def test_textures_mix_both_colours(index: int) -> None:
    v, u = (axis.astype(np.float32) for axis in np.mgrid[0:6:90j, 0:6:90j])

    share = TEXTURE_MIX[index](u, v, np.full_like(u, 15))

    assert share.min() >= 0
    assert share.max() <= 1
    assert 0.2 < share.mean() < 0.8


def test_wave_has_the_extremes_and_zeros_of_a_sine() -> None:
    at = np.array([0, 0.25, 0.5, 0.75, 1, -0.25], np.float32)

    assert wave(at).tolist() == [0, 1, 0, -1, 0, -1]


def test_larger_spread_gives_fewer_classes_a_picture() -> None:
    def mean_classes(spread: float) -> float:
        seen = [np.unique(draw_scene(seed, (64, 96), spread=spread)[1]) for seed in range(30)]
        return float(np.mean([len(labels) for labels in seen]))

    assert mean_classes(2.0) < 0.8 * mean_classes(1.0)
