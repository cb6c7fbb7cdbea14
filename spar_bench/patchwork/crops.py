"""Cut small pictures, and the tags of what they show, out of a pool of drawn scenes.

Legend: S scenes, B pictures, K classes.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spar_bench.patchwork.scenes import CLASSES, draw_scene, scene_seed

PICTURE_PX = 64
_SCENE_HW = (256, 320)
_SPREADS = (1.0, 1.6)  # every other scene is less crowded, so that its pictures have fewer tags
_ENLARGED = (0.62, 1.7)  # every other pair of scenes is seen from nearer or farther


@dataclass(frozen=True)
class Pool:
    """Scenes to cut from: images `(S, 256, 320, 3)` and labels `(S, 256, 320)`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    @classmethod
    def draw(cls, n_scenes: int) -> Self:
        """Draw the first scenes of the stream that no data set uses."""
        images = np.empty((n_scenes, *_SCENE_HW, 3), np.uint8)
        labels = np.empty((n_scenes, *_SCENE_HW), np.uint8)
        for index in range(n_scenes):
            images[index], labels[index] = _draw(index)
        return cls(images, labels)

    def pictures(self, rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
        """Cut `n` pictures at random, turned, mirrored and recoloured.

        Returns images `(B, 3, 64, 64)`, uint8, and the share of each class in them `(B, K)`.
        """
        height, width = self.labels.shape[1:]
        images = np.empty((n, PICTURE_PX, PICTURE_PX, 3), np.uint8)
        labels = np.empty((n, PICTURE_PX, PICTURE_PX), np.intp)
        scene = rng.integers(len(self.labels), size=n)
        top = rng.integers(height - PICTURE_PX + 1, size=n)
        left = rng.integers(width - PICTURE_PX + 1, size=n)
        pose = rng.integers(8, size=n)
        channels = rng.permuted(np.tile(np.arange(3), (n, 1)), axis=1)
        negative = rng.integers(2, size=(n, 3)).astype(np.uint8) * 255
        for i in range(n):
            window = slice(top[i], top[i] + PICTURE_PX), slice(left[i], left[i] + PICTURE_PX)
            picture = self.images[scene[i]][window]
            images[i] = _posed(picture, pose[i])[:, :, channels[i]] ^ negative[i]
            labels[i] = self.labels[scene[i]][window]
        flat = labels.reshape(n, -1) + np.arange(n)[:, None] * len(CLASSES)
        pixels = np.bincount(flat.ravel(), minlength=n * len(CLASSES)).reshape(n, len(CLASSES))
        shares = torch.from_numpy(pixels / PICTURE_PX**2).float()
        return torch.from_numpy(images).permute(0, 3, 1, 2), shares


def _draw(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
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


def _posed(picture: NDArray[np.uint8], pose: int) -> NDArray[np.uint8]:
    """Return one of the eight rotations and mirror images of a picture."""
    if pose & 1:
        picture = picture[:, ::-1]
    if pose & 2:
        picture = picture[::-1]
    return picture.transpose(1, 0, 2) if pose & 4 else picture
