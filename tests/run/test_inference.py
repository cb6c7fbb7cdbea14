"""Stitching by matrices against plain loops that follow the paper's description."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench.backbones.base import Backbone
from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.components.sizes import Sizes
from spar_bench.errors import SparBenchError
from spar_bench.run.inference import (
    WINDOW_BATCH,
    WindowBatch,
    single_pass,
    sliding_window,
    stitch,
    usual_batch,
)
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stitching import Axis, feature_axis, pixel_axis
from spar_bench.windows import n_windows, origins, upsample_factor
from tests.test_testing import ToyBackbone

CPU = torch.device("cpu")
PATCH, WINDOW = 4, 16
IMAGES_HW = [(32, 48), (28, 20), (36, 16), (12, 40), (8, 12), (48, 44)]


class Small(ToyBackbone):
    """A toy read in windows of four patches per side; each patch's output depends on all."""


def by_loops(backbone: Backbone, image: Tensor, stride_px: int, r: int) -> Tensor:
    """Average upsampled maps on cells of patch / r pixels, then resample to the patch grid."""
    height, width = image.shape[-2:]
    cell = PATCH // r
    total = torch.zeros(6, height // cell, width // cell)
    counts = torch.zeros(height // cell, width // cell)
    extent_h, extent_w = min(WINDOW, height), min(WINDOW, width)
    for top in origins(height, extent_h, stride_px):
        for left in origins(width, extent_w, stride_px):
            window = image[None, :, top : top + extent_h, left : left + extent_w]
            features = backbone.features(window)
            large = F.interpolate(features, scale_factor=r, mode="bilinear")[0]
            y, x = top // cell, left // cell
            total[:, y : y + large.shape[1], x : x + large.shape[2]] += large
            counts[y : y + large.shape[1], x : x + large.shape[2]] += 1
    assert counts.min() >= 1
    size = height // PATCH, width // PATCH
    return F.interpolate((total / counts)[None], size=size, mode="bilinear")[0]


@pytest.mark.parametrize("stride_px", [16, 8, 6, 4, 3, 10])
@pytest.mark.parametrize("image_hw", IMAGES_HW)
def test_features_are_stitched_as_by_plain_loops(image_hw: tuple[int, int], stride_px: int) -> None:
    backbone, images = Small(), torch.randn(2, 3, *image_hw)

    found = sliding_window(backbone, images, window_px=WINDOW, stride_px=stride_px)

    r = upsample_factor(PATCH, stride_px)
    with torch.no_grad():
        expected = torch.stack([by_loops(backbone, image, stride_px, r) for image in images])
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("r", [1, 2, 4])
def test_upsampling_is_a_setting(r: int) -> None:
    backbone, image = Small(), torch.randn(3, 28, 40)

    found = sliding_window(backbone, image[None], window_px=WINDOW, stride_px=8, upsample=r)[0]

    with torch.no_grad():
        assert torch.allclose(found, by_loops(backbone, image, 8, r), atol=1e-5)


def test_pixels_beyond_the_last_whole_patch_are_dropped() -> None:
    backbone, image = Small(), torch.randn(1, 3, 31, 42)

    found = sliding_window(backbone, image, window_px=WINDOW, stride_px=6)

    cropped = sliding_window(backbone, image[..., :28, :40], window_px=WINDOW, stride_px=6)
    assert torch.equal(found, cropped)


@pytest.mark.parametrize("out_hw", [(28, 41), (50, 33)])
@pytest.mark.parametrize("stride_px", [16, 6, 5])
@pytest.mark.parametrize("image_hw", [(28, 41), (33, 16), (13, 30)])
def test_pixels_are_stitched_as_by_plain_loops(
    image_hw: tuple[int, int], stride_px: int, out_hw: tuple[int, int]
) -> None:
    backbone, image = Small(), torch.randn(3, *image_hw)
    rows, columns = (
        pixel_axis(length, WINDOW, stride_px, patch_px=PATCH, out_px=out)
        for length, out in zip(image_hw, out_hw, strict=True)
    )

    with torch.no_grad():
        [found] = stitch(image, backbone.features, [(rows, columns)], WindowBatch(CPU))

        total, counts = torch.zeros(6, *image_hw), torch.zeros(image_hw)
        extent_h, extent_w = (min(WINDOW, length) for length in image_hw)
        for top in origins(image_hw[0], extent_h, stride_px):
            for left in origins(image_hw[1], extent_w, stride_px):
                place = slice(top, top + extent_h), slice(left, left + extent_w)
                features = backbone.features(image[None, :, *place])
                total[:, *place] += F.interpolate(
                    features, size=(extent_h, extent_w), mode="bilinear"
                )[0]
                counts[place] += 1
        expected = F.interpolate((total / counts)[None], size=out_hw, mode="bilinear")[0]
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("image_hw", [(28, 44), (12, 40)])
def test_several_strides_at_once_encode_each_window_once_and_say_the_same(
    image_hw: tuple[int, int],
) -> None:
    backbone, image, strides = Small(), torch.randn(3, *image_hw), [16, 8, 6, 4]
    seen: Counter[bytes] = Counter()
    arms = [
        tuple(
            feature_axis(n, WINDOW, s, patch_px=PATCH, upsample=upsample_factor(PATCH, s))
            for n in image_hw
        )
        for s in strides
    ]

    def encode(windows: Tensor) -> Tensor:
        assert len(windows) <= 5
        seen.update(window.numpy().tobytes() for window in windows)
        return backbone.features(windows)

    with torch.no_grad():
        axes = [(rows, columns) for rows, columns in arms]
        together = stitch(image, encode, axes, WindowBatch(CPU, 5))

    extents = [min(WINDOW, length) for length in image_hw]
    corners = {
        (top, left)
        for s in strides
        for top in origins(image_hw[0], extents[0], s)
        for left in origins(image_hw[1], extents[1], s)
    }
    assert set(seen.values()) == {1}
    assert len(seen) == len(corners)
    for stride, found in zip(strides, together, strict=True):
        alone = sliding_window(backbone, image[None], window_px=WINDOW, stride_px=stride)[0]
        assert torch.allclose(found, alone, atol=1e-5)


def test_half_precision_maps_are_stitched_in_float32() -> None:
    image, axis = torch.randn(3, 32, 32), feature_axis(32, 16, 6, patch_px=4, upsample=2)

    def ones(windows: Tensor) -> Tensor:
        return torch.full((len(windows), 2, 4, 4), 0.1, dtype=torch.bfloat16)

    [found] = stitch(image, ones, [(axis, axis)], WindowBatch(CPU))

    assert found.dtype == torch.float32
    value = torch.tensor(0.1, dtype=torch.bfloat16).float()
    assert torch.allclose(found, value.expand_as(found), atol=1e-6)


def test_one_window_as_large_as_the_image_is_a_single_pass(clip: Path) -> None:
    backbone = OpenClip(BackboneSpec(name="openclip", path=str(clip)))
    images = torch.randn(2, 3, 32, 32)

    windows = sliding_window(backbone, images, window_px=32, stride_px=32)

    assert torch.allclose(windows, single_pass(backbone, images), atol=1e-5)


def test_window_of_broken_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4 px"):
        sliding_window(Small(), torch.zeros(1, 3, 32, 32), window_px=18, stride_px=6)


class Memory:
    """Encodes as a toy does for at most this many windows at once, else runs out of memory."""

    def __init__(self, holds: int) -> None:
        self.backbone, self.holds = Small(), holds
        self.asked: list[int] = []

    def encode(self, windows: Tensor) -> Tensor:
        """Encode windows `(K, 3, eh, ew)`, or raise what CUDA does."""
        self.asked.append(len(windows))
        if len(windows) > self.holds:
            raise torch.OutOfMemoryError("Tried to allocate 7 GiB.\nOf the device's 5 GiB ...")
        with torch.no_grad():
            return self.backbone.features(windows)


def axes(image: Tensor) -> tuple[Axis, Axis]:
    rows, columns = (
        feature_axis(side, WINDOW, 4, patch_px=PATCH, upsample=1) for side in image.shape[1:]
    )
    return rows, columns


def test_windows_that_do_not_fit_are_encoded_fewer_at_once_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    image, memory, batch = torch.randn(3, 24, 64), Memory(holds=4), WindowBatch(CPU)
    [expected] = stitch(image, Memory(holds=99).encode, [axes(image)], WindowBatch(CPU))

    with caplog.at_level(logging.WARNING):
        [found] = stitch(image, memory.encode, [axes(image)], batch)

    # Three rows of 13 windows: 39 are too many, half of them too, then 4 fit: 39 = 9 * 4 + 3.
    assert memory.asked == [39, 19, 9, *[4] * 9, 3]
    assert (batch.size, batch.used) == (4, 4)
    assert torch.allclose(found, expected, atol=1e-6)
    assert [record.getMessage() for record in caplog.records] == [
        "39 windows of 16x16 px do not fit into the memory of cpu; 19 at once from now on",
        "19 windows of 16x16 px do not fit into the memory of cpu; 9 at once from now on",
        "9 windows of 16x16 px do not fit into the memory of cpu; 4 at once from now on",
    ]


def test_fewer_rows_are_together_once_their_windows_did_not_fit() -> None:
    image, memory = torch.randn(3, 32, 64), Memory(holds=20)

    stitch(image, memory.encode, [axes(image)], WindowBatch(CPU, 30))

    # Five rows of 13 windows: two are too many, then each is alone.
    assert memory.asked == [26, 13, 13, 13, 13, 13]


def test_memory_that_runs_out_in_one_reading_leaves_others_at_the_default() -> None:
    image, memory = torch.randn(3, 16, 64), Memory(holds=99)
    stitch(image, Memory(holds=4).encode, [axes(image)], WindowBatch(CPU))
    batch = WindowBatch(CPU)

    stitch(image, memory.encode, [axes(image)], batch)

    assert memory.asked == [13]
    assert (batch.size, batch.used) == (WINDOW_BATCH["cpu"], WINDOW_BATCH["cpu"])


def test_window_batch_is_not_used_before_a_window_is_encoded() -> None:
    assert WindowBatch(torch.device("cuda")).used is None
    assert WindowBatch(torch.device("cuda")).size == WINDOW_BATCH["cuda"]


def test_single_window_that_does_not_fit_is_refused_in_one_line() -> None:
    image = torch.randn(3, 16, 64)

    with pytest.raises(SparBenchError) as caught:
        stitch(image, Memory(holds=0).encode, [axes(image)], WindowBatch(CPU))

    assert str(caught.value) == (
        "cpu: must have memory for one window of 16x16 px, but Tried to allocate 7 GiB.; use a "
        "smaller teacher.window_px, or --device cpu"
    )


@pytest.mark.parametrize("batch", [1, 2, 5, 13])
def test_batch_moves_no_more_than_rounding(batch: int) -> None:
    image, backbone = torch.randn(3, 28, 64), Small()
    with torch.no_grad():
        [expected] = stitch(image, backbone.features, [axes(image)], WindowBatch(CPU))

        [found] = stitch(image, backbone.features, [axes(image)], WindowBatch(CPU, batch))

    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [(1, [1] * 39), (5, 3 * [5, 5, 3]), (13, 3 * [13]), (25, 3 * [13]), (26, [26, 13]), (39, [39])],
)
def test_whole_rows_are_encoded_together_as_far_as_they_fit(
    batch: int, expected: list[int]
) -> None:
    image, memory = torch.randn(3, 24, 64), Memory(holds=99)

    stitch(image, memory.encode, [axes(image)], WindowBatch(CPU, batch))

    assert memory.asked == expected


@pytest.mark.parametrize(
    ("stride_px", "expected"),
    # The paper's figure: windows of 512 px on an image of 2048x1024.
    [(512, 8), (256, 21), (128, 65), (64, 225), (56, 319), (40, 560), (32, 833), (24, 1495),
     (16, 3201), (8, 12545)],
)  # fmt: skip
def test_papers_windows_are_counted_and_taken_a_few_at_a_time(
    stride_px: int, expected: int
) -> None:
    rows, columns = (
        feature_axis(side, 512, stride_px, patch_px=16, upsample=upsample_factor(16, stride_px))
        for side in (1024, 2048)
    )

    assert n_windows((1024, 2048), 512, stride_px) == expected
    assert len(rows.origins) * len(columns.origins) == expected
    if stride_px == 24:
        seen: list[int] = []

        def encode(windows: Tensor) -> Tensor:
            seen.append(len(windows))
            return windows.new_ones(len(windows), 1, 32, 32)

        stitch(torch.zeros(1, 1024, 2048), encode, [(rows, columns)], WindowBatch(CPU))

        assert (sum(seen), max(seen)) == (1495, WINDOW_BATCH["cpu"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"patch_px": 16, "image_px": 224, "width": 768}, 5),
        ({"patch_px": 16, "image_px": 512, "width": 768}, 1),
        ({"patch_px": 14, "image_px": 518, "width": 1280}, 1),
        ({"patch_px": 8, "image_px": 64, "width": 128}, 48),
    ],
)
def test_as_many_windows_at_once_as_a_cpu_caches(changes: dict[str, Any], expected: int) -> None:
    sizes = Sizes(**changes, depth=2, heads=2, mlp_ratio=4, channels=8, read_out="maskclip")

    assert usual_batch(CPU, sizes) == expected
    assert usual_batch(torch.device("cuda"), sizes) == WINDOW_BATCH["cuda"]
