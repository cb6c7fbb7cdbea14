"""Sliding-window geometry: where windows begin, and how many there are.

All of it is whole numbers, without numpy: `stitching.py` has the matrices.
"""

from collections.abc import Sequence


def origins(length_px: int, window_px: int, stride_px: int) -> list[int]:
    """Return where windows begin along one axis, in pixels.

    If the stride does not end at the far border, a last window is added flush with it. An axis
    shorter than the window has one window, clipped to it.

    Source: naomikombol/SPAR, segmentor_vit.py @0f63ff2.
    """
    last = max(length_px - window_px, 0)
    regular = list(range(0, last + 1, stride_px))
    return regular if regular[-1] == last else [*regular, last]


def n_windows(image_hw: tuple[int, int], window_px: int, stride_px: int) -> int:
    """Return the number of windows that cover an image."""
    rows, columns = (len(origins(length, window_px, stride_px)) for length in image_hw)
    return rows * columns


def n_encoded(image_hw: tuple[int, int], window_px: int, strides_px: Sequence[int]) -> int:
    """Return how many windows are encoded for several strides at once: shared ones count once."""
    axes = [[origins(length, window_px, stride) for length in image_hw] for stride in strides_px]
    tops = {top for rows, _ in axes for top in rows}
    return sum(
        len({left for rows, columns in axes if top in rows for left in columns}) for top in tops
    )


def upsample_factor(patch_px: int, stride_px: int) -> int:
    """Return the paper's r: the smallest divisor of the patch with stride a multiple of patch / r.

    Upsampled by r, the maps of all windows lie on one grid of patch_px / r pixels.
    Source: naomikombol/SPAR, segmentor_vit.py @0f63ff2.
    """
    divisors = (r for r in range(1, patch_px + 1) if patch_px % r == 0)
    return next(r for r in divisors if stride_px % (patch_px // r) == 0)
