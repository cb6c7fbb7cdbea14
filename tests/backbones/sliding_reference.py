"""The sliding-window teacher as loops over windows, without our code."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def teacher(
    encode_one: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    patch_px: int,
    window_px: int,
    stride_px: int,
    r: int,
) -> Tensor:
    """Slide a window over an image; average on cells of patch_px / r pixels."""
    cell_px = patch_px // r
    height, width = image.shape[-2] // cell_px, image.shape[-1] // cell_px
    total, count = torch.zeros(1), torch.zeros(height, width)
    for top in starts(image.shape[-2], window_px, stride_px):
        for left in starts(image.shape[-1], window_px, stride_px):
            window = image[:, top : top + window_px, left : left + window_px]
            maps = F.interpolate(encode_one(window)[None], scale_factor=r, mode="bilinear")[0]
            rows = slice(top // cell_px, top // cell_px + maps.shape[-2])
            columns = slice(left // cell_px, left // cell_px + maps.shape[-1])
            placed = torch.zeros(len(maps), height, width, dtype=maps.dtype)
            placed[:, rows, columns] = maps
            total = total + placed
            count[rows, columns] += 1
    grid_hw = image.shape[-2] // patch_px, image.shape[-1] // patch_px
    return F.interpolate((total / count)[None], size=grid_hw, mode="bilinear")[0]


def starts(length_px: int, window_px: int, stride_px: int) -> list[int]:
    """Return where windows begin: every stride, and flush with the far border."""
    last = max(length_px - window_px, 0)
    return sorted({*range(0, last + 1, stride_px), last})
