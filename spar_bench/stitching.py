"""How the outputs of windows are stitched together: one matrix for rows and one for columns.

Stitching is linear and separable: each window's patch map is upsampled, added at the window's place
and divided by how many windows cover it. Windows are the product of row and column origins, so rows
and columns need one small matrix each, borders included:

    stitched (h, w) = rows (h, R * n) @ maps (R * n, K * m) @ columns (w, K * m).T

for R x K windows of n x m patches, laid out side by side.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from spar_bench.windows import origins

Matrix = NDArray[np.float64]


@lru_cache(maxsize=256)
def resize_matrix(n_in: int, n_out: int) -> Matrix:
    """Return bilinear resampling along one axis, `(n_out, n_in)`, as `F.interpolate` does it.

    Without antialiasing, corners not aligned, borders repeated.
    """
    matrix = _resampled(np.eye(n_in), n_out)
    matrix.setflags(write=False)
    return matrix


def _resampled(rows: Matrix, n_out: int) -> Matrix:
    """Return the product of `resize_matrix` with a matrix, using the two rows that each needs.

    A real matrix product would wake numpy's own threads, which keep spinning while torch computes:
    on two cores this made a sliding window take four times as long.
    """
    n_in = len(rows)
    if n_in == n_out:
        return rows
    centres = np.maximum((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0)
    low = np.minimum(centres.astype(np.int64), n_in - 1)
    high = np.minimum(low + 1, n_in - 1)
    fraction = (centres - low)[:, np.newaxis]
    resampled: Matrix = rows[low] * (1 - fraction) + rows[high] * fraction
    return resampled


@dataclass(frozen=True)
class Axis:
    """Windows along one axis of an image, and the matrix that stitches their patches.

    `stitch` is `(n_out, len(origins) * n)` for n patches along a window; `extent_px` is the window,
    clipped to the axis.
    """

    origins: tuple[int, ...]
    extent_px: int
    stitch: Matrix


def feature_axis(
    length_px: int, window_px: int, stride_px: int, *, patch_px: int, upsample: int
) -> Axis:
    """Stitch features along one axis onto the patch grid: the distillation target.

    Each map is upsampled by `upsample`, summed on cells of patch_px / upsample pixels, divided by
    counts, and resampled to length_px / patch_px. The axis is a multiple of the patch.

    Raises:
        ValueError: windows leave gaps, a window would not begin on a cell, or a patch is
            incomplete.
    """
    _require_tiling(window_px, stride_px, patch_px)
    if length_px % patch_px:
        raise ValueError(
            f"length_px: must be a multiple of {patch_px} px (the patch), but got {length_px}"
        )
    extent = min(window_px, length_px)
    starts = origins(length_px, extent, stride_px)
    if upsample < 1 or patch_px % upsample:
        raise ValueError(
            f"upsample: must divide the patch ({patch_px} px), but got {upsample}; leave it out"
        )
    cell_px = patch_px // upsample
    if any(start % cell_px for start in starts):
        raise ValueError(
            f"stride_px: must place windows on cells of {patch_px}/{upsample} px, but got "
            f"{stride_px}; leave upsample out, or use a multiple of {cell_px}"
        )
    n_patches = extent // patch_px
    enlarge = resize_matrix(n_patches, n_patches * upsample)
    cells = _average(enlarge, [start // cell_px for start in starts], length_px // cell_px)
    return Axis(tuple(starts), extent, _resampled(cells, length_px // patch_px))


def pixel_axis(
    length_px: int,
    window_px: int,
    stride_px: int,
    *,
    patch_px: int,
    out_px: int,
    n_patches: int | None = None,
) -> Axis:
    """Stitch the windows' values for pixels along one axis, then resample to `out_px` pixels.

    Each map is upsampled bilinearly to the window's own pixels, summed and divided by counts.
    `n_patches` is the backbone's patch count for a window that a short axis clips to a size that is
    not a multiple of the patch; by default the rest is dropped.

    Raises:
        ValueError: windows leave gaps, or are not multiples of the patch.
    """
    _require_tiling(window_px, stride_px, patch_px)
    extent = min(window_px, length_px)
    starts = origins(length_px, extent, stride_px)
    n_patches = n_patches or extent // patch_px
    pixels = _average(resize_matrix(n_patches, extent), starts, length_px)
    return Axis(tuple(starts), extent, _resampled(pixels, out_px))


def _require_tiling(window_px: int, stride_px: int, patch_px: int) -> None:
    if window_px < 1 or window_px % patch_px:
        nearest_px = max(1, round(window_px / patch_px)) * patch_px
        raise ValueError(
            f"window_px: must be a multiple of {patch_px} px (the patch), but got {window_px}; use "
            f"{nearest_px}"
        )
    if not 1 <= stride_px <= window_px:
        raise ValueError(
            f"stride_px: must be 1 to window_px ({window_px}), to leave no gaps, but got "
            f"{stride_px}; use {window_px} or less, above 0"
        )


def _average(enlarge: Matrix, starts: list[int], length: int) -> Matrix:
    """Place `enlarge` `(extent, n)` at each start of an axis and divide by the overlap."""
    extent, n = enlarge.shape
    total = np.zeros((length, len(starts) * n))
    counts = np.zeros((length, 1))
    for index, start in enumerate(starts):
        total[start : start + extent, index * n : (index + 1) * n] += enlarge
        counts[start : start + extent] += 1
    return total / counts
