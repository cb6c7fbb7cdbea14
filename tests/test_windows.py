"""Where windows begin and how many there are, against the paper's counts and plain loops."""

from itertools import product

import pytest

from spar_bench.windows import n_encoded, n_windows, origins, upsample_factor


@pytest.mark.parametrize(
    ("length_px", "window_px", "stride_px", "expected"),
    [
        (64, 64, 64, [0]),
        (128, 64, 32, [0, 32, 64]),
        (130, 64, 32, [0, 32, 64, 66]),  # flush with the border
        (100, 64, 64, [0, 36]),
        (40, 64, 32, [0]),  # clipped
        (65, 64, 1, [0, 1]),
    ],
)
def test_windows_begin_every_stride_and_flush_with_the_border(
    length_px: int, window_px: int, stride_px: int, expected: list[int]
) -> None:
    assert origins(length_px, window_px, stride_px) == expected


@pytest.mark.parametrize(
    ("stride_px", "expected"),
    [(512, 8), (256, 21), (128, 65), (64, 225), (56, 319), (40, 560), (32, 833), (24, 1495),
     (16, 3201), (8, 12545)],
)  # fmt: skip
def test_windows_of_a_street_scene_are_as_many_as_in_the_paper(
    stride_px: int, expected: int
) -> None:
    assert n_windows((1024, 2048), 512, stride_px) == expected
    assert n_windows((2048, 1024), 512, stride_px) == expected


@pytest.mark.parametrize("image_hw", [(70, 133), (64, 200), (30, 90)])
def test_union_of_strides_counts_each_window_once(image_hw: tuple[int, int]) -> None:
    strides, corners = [32, 24, 16, 12], set()
    for stride in strides:
        corners |= set(product(*(origins(length, 48, stride) for length in image_hw)))

    assert n_encoded(image_hw, 48, strides) == len(corners)
    assert n_encoded(image_hw, 48, [24]) == n_windows(image_hw, 48, 24)


def test_upsampling_follows_the_papers_rule() -> None:
    by_stride_at_16 = {24: 2, 40: 2, 56: 2, 8: 2, 16: 1, 32: 1, 512: 1, 12: 4, 6: 8, 5: 16, 4: 4}
    by_stride_at_8 = {64: 1, 28: 2, 12: 2, 4: 2, 6: 4, 3: 8}

    assert {stride: upsample_factor(16, stride) for stride in by_stride_at_16} == by_stride_at_16
    assert {stride: upsample_factor(8, stride) for stride in by_stride_at_8} == by_stride_at_8
    assert upsample_factor(14, 21) == 2
