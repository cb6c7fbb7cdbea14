"""Colours for classes, as far apart as possible for readers with and without colour blindness."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

IGNORED = 255

_LEVELS = 11
_DARKEST, _MIDDLE, _LIGHTEST = 12.0, 50.0, 93.0
_VIVID = 0.03
_TO_XYZ = np.array(
    [[0.4339, 0.3762, 0.1899], [0.2127, 0.7152, 0.0722], [0.0178, 0.1095, 0.8728]]
)  # of the white point's XYZ
_READERS = [
    np.eye(3),
    np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
]
"""Linear RGB as tri-, deuter-, prot- and tritanopes see it (Machado et al. 2009)."""


@cache
def class_colors(n_classes: int) -> NDArray[np.uint8]:
    """Return a colour for each label, `(256, 3)`; the first `n_classes` are distinguishable.

    Each colour is the one farthest from all before it, for the reader who distinguishes them worst;
    the first ones do not depend on `n_classes`. Labels that are not a class, such as ignored, are
    white.
    """
    steps = np.linspace(0, 1, _LEVELS)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    light = _lightness(grid)
    grid = grid[(light > _DARKEST) & (light < _LIGHTEST)]
    candidates = np.concatenate([grid, np.ones((1, 3))])
    seen = np.stack([_seen(candidates, reader) for reader in _READERS])
    colors = np.full((256, 3), 255, np.uint8)
    last = len(candidates) - 1  # white is taken
    distance = np.full(len(candidates), np.inf)
    for label in range(min(n_classes, IGNORED)):
        distance = np.minimum(distance, np.linalg.norm(seen - seen[:, last, None], axis=-1).min(0))
        last = int(np.argmax(distance))
        colors[label] = np.round(255 * candidates[last])
    return colors


def ink_on(color: NDArray[np.uint8]) -> str:
    """Return the colour of text that is readable on `color` `(3,)`: black or white."""
    return "black" if _lightness(color[None] / 255)[0] > _MIDDLE else "white"


def _lightness(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return L* `(N,)`, from 0, black, to 100, white, of colours `(N, 3)` in 0-1."""
    return _seen(rgb, _READERS[0])[:, 0]


def _seen(rgb: NDArray[np.float64], reader: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return CIELAB `(N, 3)` of colours `(N, 3)` in 0-1 as a reader sees them.

    Distances between vivid colours are shortened: CIELAB overestimates them.
    """
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = _response(np.clip(linear @ reader.T, 0, 1) @ _TO_XYZ.T).T
    chroma = np.stack([500 * (x - y), 200 * (y - z)], axis=1)
    size = np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-6)
    shortened = chroma * np.log1p(_VIVID * size) / (_VIVID * size)
    return np.concatenate([(116 * y - 16)[:, None], shortened], axis=1)


def _response(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
