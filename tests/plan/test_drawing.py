"""Sizes of distillation images against the paper's configs worked out by hand and exactly."""

from fractions import Fraction
from math import floor, prod
from typing import Any

import numpy as np
import pytest

from spar_bench.drawing import Drawing, Drawn, draw, drawn_sizes, frame

CONFIG = Drawing(
    count=4000, short_side_px=(512, 1024), long_side_ratio=2.0, crop=0.5, flip=0.5,
    seed=0, patch_px=16, shortest_px=512,
)  # fmt: skip


def with_(drawing: Drawing, **changes: Any) -> Drawing:
    return drawing.model_copy(update=changes)


DAGGER = with_(CONFIG, short_side_px=(512, 2560), long_side_ratio=1.0)
TEXT = with_(CONFIG, short_side_px=(512, 2048), long_side_ratio=None)


def whole(short_side_px: int) -> Drawn:
    return Drawn(0, short_side_px, None, flip=False)


@pytest.mark.parametrize(
    ("settings", "image_hw", "short_side_px", "expected"),
    [
        # 3:2 at r = 0.5: no more than 512 by 1024, so 512x768.
        (CONFIG, (1500, 2250), 512, (512, 768)),
        (CONFIG, (2250, 1500), 1024, (1536, 1024)),
        # 2:1 is what the cap is made for; 1448 px squared at r = 1.
        (CONFIG, (1000, 2000), 1024, (1024, 2048)),
        # 3:1: the long side 2048 would leave 682 px, 1024 only 341: forced to 512.
        (CONFIG, (700, 2100), 1024, (683, 2048)),
        (CONFIG, (700, 2100), 512, (512, 1536)),
        (CONFIG, (2100, 700), 512, (1536, 512)),
        # Smaller than 512: enlarged as any other.
        (CONFIG, (200, 300), 512, (512, 768)),
        (CONFIG, (100, 400), 600, (512, 2048)),
        # The wider range bounds the long side alone.
        (DAGGER, (1500, 2250), 2560, (1707, 2560)),
        (DAGGER, (1500, 2250), 600, (512, 768)),
        (DAGGER, (2250, 1500), 768, (768, 512)),
        # The paper's text bounds the short side alone.
        (TEXT, (700, 2100), 2048, (2048, 6144)),
    ],
)
def test_image_is_resized_as_the_paper_does(
    settings: Drawing,
    image_hw: tuple[int, int],
    short_side_px: int,
    expected: tuple[int, int],
) -> None:
    found = frame(image_hw, whole(short_side_px), settings)

    floored = tuple(side // 16 * 16 for side in expected)
    assert found.image_hw == floored
    assert found.resized_hw == (expected if settings is TEXT else floored)
    assert found.start == (0, 0)


def exactly(image_hw: tuple[int, int], drawn: Drawn, settings: Drawing) -> tuple[int, int]:
    """Return the size of a drawn image by the paper's recipe, in fractions where it is exact."""
    assert settings.long_side_ratio is not None
    long_px = int(settings.long_side_ratio * drawn.short_side_px)
    scale = min(Fraction(drawn.short_side_px, min(image_hw)), Fraction(long_px, max(image_hw)))
    sides = [floor(side * scale + Fraction(1, 2)) for side in image_hw]
    if min(sides) < 512:  # enlarged from there, and never cropped
        factor = 512 / min(sides)  # in floats: may give 1535 where 1536 is exact
        sides = [max(floor(side * factor), 512) for side in sides]
    elif drawn.crop is not None:
        sides = [
            max(round(side * share), 512) for side, share in zip(sides, drawn.crop[:2], strict=True)
        ]
    return sides[0] // 16 * 16, sides[1] // 16 * 16


@pytest.mark.parametrize("settings", [CONFIG, DAGGER])
@pytest.mark.parametrize(
    # 3:2 exactly would give halves of a pixel, which floats round either way, mmcv's as ours.
    "image_hw",
    [(1500, 2249), (2249, 1500), (1501, 1999), (480, 641), (300, 900), (900, 2701)],
)
def test_every_drawn_size_is_the_recipes(settings: Drawing, image_hw: tuple[int, int]) -> None:
    drawn = draw(with_(settings, count=600), 600)

    found = [frame(image_hw, one, settings) for one in drawn]

    assert [one.image_hw for one in found] == [exactly(image_hw, one, settings) for one in drawn]
    assert min(min(one.image_hw) for one in found) >= 512
    for one in found:
        ends = [start + side for start, side in zip(one.start, one.image_hw, strict=True)]
        assert all(end <= side for end, side in zip(ends, one.resized_hw, strict=True))


def test_image_kept_whole_under_a_cap_loses_nothing_and_an_enlarged_one_is_not_cropped() -> None:
    cropped = Drawn(0, 600, (0.5, 0.5, 0.0, 0.0), flip=False)

    kept_whole = frame((1000, 1501), whole(700), CONFIG)
    enlarged = frame((1500, 2250), cropped, DAGGER)
    not_enlarged = frame((1500, 2250), cropped, CONFIG)

    # 700 by 1051 px, resized once more to multiples of 16.
    assert (kept_whole.resized_hw, kept_whole.image_hw) == ((688, 1040), (688, 1040))
    # 400 by 600 px is below 512: 512 by 768 px, whole.
    assert (enlarged.resized_hw, enlarged.image_hw) == ((512, 768), (512, 768))
    assert (not_enlarged.resized_hw, not_enlarged.image_hw) == ((600, 900), (512, 512))


def test_without_a_cap_an_image_is_what_it_was_before_there_was_one() -> None:
    settings = with_(CONFIG, short_side_px=(300, 700), long_side_ratio=None)
    drawn = Drawn(0, 301, (0.4, 0.9, 0.5, 1.0), flip=True)

    found = frame((501, 1003), drawn, settings)

    # 301 / 501 of 1003 is 602.6; a crop leaves 512 px, but no more than there are.
    assert found.resized_hw == (301, 603)
    assert found.image_hw == (288, 528)
    assert found.start == (0, 603 - 543)


def mean_tokens(*, ratio: float | None, highest: int, aspect: float) -> float:
    """Integrate the recipe over its uniform draws on a grid, roundings of a pixel left aside."""
    shorts = np.linspace(512, highest, 301)
    shares = np.linspace(0.4, 1, 121)
    total = 0.0
    for short in shorts:
        side = short if ratio is None else min(short, ratio * short / aspect)
        sides = np.array([max(side, 512), max(side, 512) * aspect])
        cropped = [np.maximum(length * shares, 512) // 16 for length in sides]
        whole = prod(sides // 16)
        is_enlarged = ratio is not None and side < 512
        total += whole if is_enlarged else 0.5 * whole + 0.5 * prod(c.mean() for c in cropped)
    return total / len(shorts)


@pytest.mark.parametrize(
    ("settings", "rough"), [(CONFIG, 2700), (DAGGER, 5300), (TEXT, 8000)], ids=str
)
def test_mean_tokens_of_an_image_are_those_that_the_papers_storage_hints_at(
    settings: Drawing, rough: float
) -> None:
    counted = drawn_sizes(settings, n_source=4000, source_hw=(1500, 2250))

    found = sum(n * (h // 16) * (w // 16) for (h, w), n in counted.items()) / 4000
    expected = mean_tokens(
        ratio=settings.long_side_ratio, highest=settings.short_side_px[1], aspect=1.5
    )
    assert sum(counted.values()) == 4000
    assert found == pytest.approx(expected, rel=0.03)  # a sample of 4,000
    assert found == pytest.approx(rough, rel=0.05)
