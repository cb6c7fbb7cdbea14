"""Colours for classes, as far apart as possible for readers with and without colour blindness."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

IGNORED = 255

_LEVELS = 9
_RANGE = (0.1, 0.93)
_DICHROMATS = 2.2
_DARKEST, _LIGHTEST = 0.4, 0.92
_TO_CONES = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
_TO_LAB = np.array(
    [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
)
_READERS = [
    np.eye(3),
    np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
]
"""Linear RGB as trichromats, deuteranopes and protanopes see it (Machado et al. 2009)."""


@cache
def class_colors(n_classes: int) -> NDArray[np.uint8]:
    """Return a colour for each label, `(256, 3)`, of which the first `n_classes` are told apart.

    Each colour is the one farthest, for the reader worst off, from all before it; the first ones
    do not depend on `n_classes`. Labels that are no class, the ignored among them, are white.
    """
    steps = np.linspace(*_RANGE, _LEVELS)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = _oklab(grid, _READERS[0])[:, 0]
    grid = grid[(lightness > _DARKEST) & (lightness < _LIGHTEST)]
    candidates = np.concatenate([grid, np.ones((1, 3))])
    seen = np.stack([_oklab(candidates, reader) for reader in _READERS])
    colors = np.full((256, 3), 255, np.uint8)
    last = len(candidates) - 1  # white is taken
    # A dichromat sees far fewer colours: without a weight, theirs alone would decide.
    seen[1:] *= _DICHROMATS
    distance = np.full(len(candidates), np.inf)
    for label in range(min(n_classes, IGNORED)):
        distance = np.minimum(distance, np.linalg.norm(seen - seen[:, last, None], axis=-1).min(0))
        last = int(np.argmax(distance))
        colors[label] = np.round(255 * candidates[last])
    return colors


def _oklab(rgb: NDArray[np.float64], reader: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return perceptual coordinates `(N, 3)` of colours `(N, 3)` in 0-1: equal steps look equal."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(np.clip(linear @ reader.T, 0, 1) @ _TO_CONES.T) @ _TO_LAB.T)
