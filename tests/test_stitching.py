"""The matrices that stitch windows, against torch's resampling and what windows agree on."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spar_bench.stitching import feature_axis, pixel_axis, resize_matrix
from spar_bench.windows import upsample_factor


@pytest.mark.parametrize(
    ("n_in", "n_out"), [(1, 1), (1, 5), (4, 8), (7, 7), (7, 20), (20, 7), (13, 5), (3, 64), (64, 9)]
)
def test_resize_matrix_resamples_as_torch_does(n_in: int, n_out: int) -> None:
    values = torch.randn(1, 2, n_in, dtype=torch.float64)

    expected = F.interpolate(values, size=n_out, mode="linear")

    found = values @ torch.from_numpy(resize_matrix(n_in, n_out).copy()).T
    assert torch.allclose(found, expected, atol=1e-12)


def test_resize_matrix_cannot_be_changed_behind_the_cache() -> None:
    with pytest.raises(ValueError, match="read-only"):
        resize_matrix(3, 5)[0, 0] = 2


@pytest.mark.parametrize("length_px", [96, 101, 64, 40, 44])
@pytest.mark.parametrize("stride_px", [64, 28, 24, 12, 5])
def test_stitching_keeps_what_all_windows_agree_on(length_px: int, stride_px: int) -> None:
    upsample = upsample_factor(8, stride_px)
    whole_px = length_px // 8 * 8
    features = feature_axis(whole_px, 64, stride_px, patch_px=8, upsample=upsample)
    pixels = pixel_axis(length_px, 64, stride_px, patch_px=8, out_px=31)

    n_patches = min(64, length_px) // 8
    assert features.stitch.shape == (length_px // 8, len(features.origins) * n_patches)
    assert pixels.stitch.shape == (31, len(pixels.origins) * n_patches)
    for axis in (features, pixels):
        assert np.allclose(axis.stitch.sum(axis=1), 1)
        assert axis.stitch.min() >= 0


def test_window_is_clipped_to_a_smaller_image() -> None:
    axis = feature_axis(40, 64, 48, patch_px=8, upsample=1)
    pixels = pixel_axis(44, 64, 48, patch_px=8, out_px=44)

    assert (axis.origins, axis.extent_px, axis.stitch.shape) == ((0,), 40, (5, 5))
    assert (pixels.origins, pixels.extent_px, pixels.stitch.shape) == ((0,), 44, (44, 5))


def test_windows_off_the_cells_of_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="must place windows on cells of 8/1 px, but got 12"):
        feature_axis(128, 64, 12, patch_px=8, upsample=1)
    for upsample in (3, 0, -2):
        with pytest.raises(ValueError, match=rf"the patch \(8 px\), but got {upsample}"):
            feature_axis(128, 64, 16, patch_px=8, upsample=upsample)


@pytest.mark.parametrize(
    ("window_px", "stride_px", "told"),
    [
        (64, 72, r"stride_px: must be 1 to window_px \(64\).* but got 72"),
        (64, 0, "stride_px: .* but got 0"),
        (64, -3, "stride_px: .* but got -3"),
        (60, 12, r"window_px: must be a multiple of 8 px \(the patch\), but got 60; use 64"),
        (0, 12, "window_px: .* but got 0; use 8"),
    ],
)
def test_gaps_between_windows_and_broken_patches_are_refused(
    window_px: int, stride_px: int, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        feature_axis(256, window_px, stride_px, patch_px=8, upsample=2)
    with pytest.raises(ValueError, match=told):
        pixel_axis(256, window_px, stride_px, patch_px=8, out_px=256)


def test_axis_of_features_has_whole_patches() -> None:
    with pytest.raises(ValueError, match=r"multiple of 8 px \(the patch\), but got 44"):
        feature_axis(44, 64, 48, patch_px=8, upsample=1)


def test_patches_of_a_clipped_window_are_the_backbones_to_count() -> None:
    padded = pixel_axis(44, 64, 48, patch_px=8, out_px=44, n_patches=6)

    assert np.allclose(padded.stitch, resize_matrix(6, 44))
