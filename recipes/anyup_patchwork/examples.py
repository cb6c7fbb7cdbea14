"""Draw what AnyUp learns from: a picture, its features in one pass, and finer features of it.

Shape legend: C channels, H x W pixels of a picture, h x w patches of 8 px, G x K pixels of the
guidance: H x W, or half of it.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from recipes.anyup_patchwork.forward import Part
from spar_bench.backbones.base import Backbone
from spar_bench.datasets.base import DatasetSettings
from spar_bench.datasets.patchwork import Dataset
from spar_bench.run.images import normalise, resize, to_tensor
from spar_bench.run.inference import WindowBatch, single_pass, stitch
from spar_bench.stitching import pixel_axis

TARGET_PX = 2
"""Side of a target's cells."""
WINDOW_PX, STRIDE_PX = 64, 12

_PATCH_PX = 8
_SHORT_SIDES_PX = (128, 320)
_PICTURES_HW = ((256, 320), (128, 160))
_SMALL_SHARE = 0.25
_FULL_GUIDANCE_SHARE = 0.15  # of large pictures: the others cost a quarter of it
_CELLS_PX = (1, 2, 4)
_PART_CELLS = 48


class Example(NamedTuple):
    """An image `(3, G, K)`, normalised as ImageNet's; features `(C, h, w)`, and what they become.

    The target is in half precision, `(C, H / 2, W / 2)`.
    """

    image: Tensor
    features: Tensor
    target: Tensor


class Lesson(NamedTuple):
    """An example, a part of its cells, and the target of that part `(C, rows, columns)`."""

    example: Example
    part: Part
    target: Tensor


def draw_example(backbone: Backbone, index: int, seed: int) -> Example:
    """Draw an example from a scene of the training split: resized, or also cut.

    Its target is what windows of 64 px every 12 px say, averaged at pixels.
    """
    rng = np.random.default_rng([seed, index])
    picture = _picture(index, rng)
    seen = normalise(picture, backbone.mean, backbone.std)
    rows, columns = (
        pixel_axis(side, WINDOW_PX, STRIDE_PX, patch_px=_PATCH_PX, out_px=side // TARGET_PX)
        for side in picture.shape[1:]
    )
    with torch.inference_mode():
        [target] = stitch(seen, backbone.features, [(rows, columns)], WindowBatch(seen.device))
    is_large = picture[0].numel() > np.prod(_PICTURES_HW[1])
    if is_large and rng.random() >= _FULL_GUIDANCE_SHARE:
        picture = F.avg_pool2d(picture, 2)
    features = single_pass(backbone, seen[None])[0]
    return Example(
        normalise(picture, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        features.clone(),
        target.half(),
    )


def draw_lesson(example: Example, rng: np.random.Generator) -> Lesson:
    """Draw the size of cells, at least a pixel of the guidance, and which ones are predicted."""
    height, width = (_PATCH_PX * side for side in example.features.shape[1:])
    guidance_px = height // example.image.shape[1]
    cell_px = int(rng.choice([px for px in _CELLS_PX if px >= guidance_px]))
    rows, columns = (_run(side // cell_px, cell_px, rng) for side in (height, width))
    part = Part((height // cell_px, width // cell_px), rows, columns)
    down, across = (
        slice(run.start * cell_px // TARGET_PX, run.stop * cell_px // TARGET_PX)
        for run in (rows, columns)
    )
    size = rows.stop - rows.start, columns.stop - columns.start
    target = F.adaptive_avg_pool2d(example.target[:, down, across].float(), size)
    return Lesson(example, part, target)


def _picture(index: int, rng: np.random.Generator) -> Tensor:
    """Draw the picture `(3, H, W)`, 0 to 1, whose sides are whole patches."""
    scene = to_tensor(Dataset("train", DatasetSettings(count=index + 1)).image(index))
    scale = rng.uniform(*_SHORT_SIDES_PX) / min(scene.shape[1:])
    whole_hw = tuple(_PATCH_PX * round(side * scale / _PATCH_PX) for side in scene.shape[1:])
    wanted_hw = _PICTURES_HW[int(rng.random() < _SMALL_SHARE)]
    height, width = (min(sides) for sides in zip(wanted_hw, whole_hw, strict=True))
    top, left = (
        int(rng.integers(whole - side + 1))
        for whole, side in zip(whole_hw, (height, width), strict=True)
    )
    return resize(scene, (whole_hw[0], whole_hw[1]))[:, top : top + height, left : left + width]


def _run(n_cells: int, cell_px: int, rng: np.random.Generator) -> slice:
    """Draw a run of cells that begins and ends with a cell of the target."""
    step = max(1, TARGET_PX // cell_px)
    length = min(_PART_CELLS, n_cells)
    start = step * int(rng.integers((n_cells - length) // step + 1))
    return slice(start, start + length)
