"""The ways that a user would write without spar-bench: what it is compared with.

Shape legend: C channels, H x W pixels, h x w patch grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench.backbones.base import Backbone
from spar_bench.windows import origins, upsample_factor


def window_by_window(backbone: Backbone, image: Tensor, window_px: int, stride_px: int) -> Tensor:
    """Return the features `(C, h, w)` of an image `(3, H, W)`: one window after another."""
    return _averaged(backbone, image, window_px, stride_px, batch=1)


def ten_at_once(backbone: Backbone, image: Tensor, window_px: int, stride_px: int) -> Tensor:
    """Return the same: all windows cut out first, then encoded ten at a time.

    Source: naomikombol/SPAR, segmentor_vit.py @0f63ff2, of which no line is copied.
    """
    return _averaged(backbone, image, window_px, stride_px, batch=10)


def _averaged(
    backbone: Backbone, image: Tensor, window_px: int, stride_px: int, *, batch: int
) -> Tensor:
    """Average windows on cells of a pixel, then bring them to the patch grid."""
    patch_px, (height, width) = backbone.sizes.patch_px, image.shape[-2:]
    places = [
        (top, left)
        for top in origins(height, window_px, stride_px)
        for left in origins(width, window_px, stride_px)
    ]
    cut = torch.stack(
        [image[:, top : top + window_px, left : left + window_px] for top, left in places]
    )
    maps = torch.cat(
        list(map(backbone.features, cut.tensor_split([*range(batch, len(cut), batch)])))
    )
    r = upsample_factor(patch_px, stride_px)
    cell_px = patch_px // r
    total = torch.zeros(maps.shape[1], height // cell_px, width // cell_px)
    count = torch.zeros(total.shape[1:])
    for (top, left), one in zip(places, maps, strict=True):
        finer = F.interpolate(one[None], scale_factor=r, mode="bilinear")[0]
        rows = slice(top // cell_px, top // cell_px + finer.shape[1])
        columns = slice(left // cell_px, left // cell_px + finer.shape[2])
        total[:, rows, columns] += finer
        count[rows, columns] += 1
    grid_hw = height // patch_px, width // patch_px
    return F.interpolate((total / count)[None], size=grid_hw, mode="bilinear")[0]
