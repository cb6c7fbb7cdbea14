"""Cut small pictures, with tags of what they show, from a pool of drawn scenes.

Legend: S scenes, B pictures, K classes, R = 4 regions of a collage, N patches.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spar_bench.patchwork.classes import CLASSES
from spar_bench.patchwork.scenes import draw_scene, scene_seed

PICTURE_PX = 64
PATCH_PX = 8
N_REGIONS = 4
LEAST_SHARE = 0.04
"""Share of a picture: a class that covers less is tagged neither present nor absent."""

_SCENE_HW = (256, 320)
_SPREADS = (1.0, 1.6)  # every other scene is less crowded: its pictures have fewer tags
_ENLARGED = (0.62, 1.7)  # every other pair of scenes is scaled
_CUT_SHARES = (0.4, 0.2, 0.2, 0.2)  # of pictures: whole, in two either way, in four

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Pool:
    """Scenes to cut from: images `(S, 256, 320, 3)` and labels `(S, 256, 320)`."""

    images: Pixels
    labels: Pixels

    @classmethod
    def draw(cls, n_scenes: int) -> Self:
        """Draw the first scenes of a stream that no data set uses."""
        images = np.empty((n_scenes, *_SCENE_HW, 3), np.uint8)
        labels = np.empty((n_scenes, *_SCENE_HW), np.uint8)
        for index in range(n_scenes):
            images[index], labels[index] = _draw(index)
        return cls(images, labels)

    def pictures(self, rng: np.random.Generator, n: int) -> tuple[Pixels, Pixels]:
        """Cut `n` pictures at random, turned, mirrored and recoloured.

        Returns images `(B, 64, 64, 3)` and labels `(B, 64, 64)`.
        """
        height, width = self.labels.shape[1:]
        images = np.empty((n, PICTURE_PX, PICTURE_PX, 3), np.uint8)
        labels = np.empty((n, PICTURE_PX, PICTURE_PX), np.uint8)
        scene = rng.integers(len(self.labels), size=n)
        top = rng.integers(height - PICTURE_PX + 1, size=n)
        left = rng.integers(width - PICTURE_PX + 1, size=n)
        pose = rng.integers(8, size=n)
        channels = rng.permuted(np.tile(np.arange(3), (n, 1)), axis=1)
        negative = rng.integers(2, size=(n, 3)).astype(np.uint8) * 255
        for i in range(n):
            window = slice(top[i], top[i] + PICTURE_PX), slice(left[i], left[i] + PICTURE_PX)
            picture = _posed(self.images[scene[i]][window], pose[i])
            images[i] = picture[:, :, channels[i]] ^ negative[i]
            labels[i] = _posed(self.labels[scene[i]][window], pose[i])
        return images, labels


class Batch(NamedTuple):
    """Pictures to learn from: images `(B, 3, 64, 64)`, uint8; regions `(B, N)`; tags `(B, R, K)`.

    A tag is 1 where a region shows the class, 0 where it does not, NaN where it is ignored.
    """

    images: Tensor
    regions: Tensor
    tags: Tensor


def draw_batch(pool: Pool, rng: np.random.Generator, n: int) -> Batch:
    """Draw `n` pictures with their tags; some are collages of two or four, tagged region by region.

    A collage teaches that a patch should describe its own surroundings: its neighbour across the
    seam is no help.
    """
    images, labels = pool.pictures(rng, n)
    regions = _cut(rng, n)
    of_pixel = regions.repeat(PATCH_PX, axis=1).repeat(PATCH_PX, axis=2)
    glued, glued_labels = images.copy(), labels.copy()
    for region in range(1, N_REGIONS):
        here = of_pixel == region
        glued[here] = np.roll(images, region, axis=0)[here]
        glued_labels[here] = np.roll(labels, region, axis=0)[here]
    return Batch(
        images=torch.from_numpy(glued).permute(0, 3, 1, 2),
        regions=torch.from_numpy(regions.reshape(n, -1)),
        tags=torch.from_numpy(_tags(glued_labels, of_pixel)),
    )


def _cut(rng: np.random.Generator, n: int) -> NDArray[np.intp]:
    """Return the region of each patch, `(B, 8, 8)`: uncut, cut one way, or cut both ways."""
    patch = np.arange(PICTURE_PX // PATCH_PX)
    kind = rng.choice(4, size=n, p=_CUT_SHARES)
    down, across = rng.integers(2, len(patch) - 1, size=(2, n))
    below = (patch >= down[:, None]) & ((kind == 1) | (kind == 3))[:, None]
    right = (patch >= across[:, None]) & ((kind == 2) | (kind == 3))[:, None]
    regions: NDArray[np.intp] = (2 * below[:, :, None] + right[:, None, :]).astype(np.intp)
    return regions


def _tags(labels: Pixels, regions: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the tags of each region of each picture, `(B, R, K)`."""
    n, n_classes = len(labels), len(CLASSES)
    place = (np.arange(n)[:, None, None] * N_REGIONS + regions) * n_classes + labels
    counts = np.bincount(place.ravel(), minlength=n * N_REGIONS * n_classes)
    pixels = counts.reshape(n, N_REGIONS, n_classes)
    size = pixels.sum(axis=2, keepdims=True)
    share = pixels / np.maximum(size, 1)
    tags: NDArray[np.float32] = (share >= LEAST_SHARE).astype(np.float32)
    tags[((share > 0) & (share < LEAST_SHARE)) | (size == 0)] = np.nan
    return tags


def _draw(index: int) -> tuple[Pixels, Pixels]:
    """Draw one scene of the pool at its own spread and magnification."""
    seed, spread = scene_seed("pretrain", index), _SPREADS[index % 2]
    if index % 4 < 2:
        return draw_scene(seed, _SCENE_HW, spread=spread)
    low, high = _ENLARGED
    enlarged = low * (high / low) ** float(np.random.default_rng(seed).random())
    drawn_hw = (round(_SCENE_HW[0] / enlarged), round(_SCENE_HW[1] / enlarged))
    image, labels = draw_scene(seed, drawn_hw, spread=spread)
    size = _SCENE_HW[::-1]
    return (
        np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)),
        np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)),
    )


def _posed(picture: Pixels, pose: int) -> Pixels:
    """Return one of the eight rotations and mirror images of a picture."""
    if pose & 1:
        picture = picture[:, ::-1]
    if pose & 2:
        picture = picture[::-1]
    return picture.swapaxes(0, 1) if pose & 4 else picture
