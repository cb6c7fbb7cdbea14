"""Draw procedural scenes with exact label maps: textured regions, and plain shapes lying on them.

Legend: H, W image height and width in pixels; N cells of the region grid; P pixels of one class.

Everything is coordinate arithmetic: only `+ - * / sqrt floor abs` and comparisons touch a pixel,
which IEEE 754 rounds the same everywhere, and only uniform draws are taken from the generator, so a
seed gives the same scene on every machine. This is why `sin` is not used here.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spar_bench.patchwork.classes import SHAPES, TEXTURES
from spar_bench.patchwork.patterns import SHAPE_DISTANCE, TEXTURE_MIX, Floats, wave

_STREAMS = ("pretrain", "train", "val")
_STREAM_LENGTH = 1 << 32

# At scale 1; `_spread` draws between the two ends of a range.
SCENE_SCALE = (0.7, 1.6)
REGION_PX = 92.0
SHAPE_CELL_PX = 56.0
SHAPE_SHARE = 0.9
SHAPE_RADIUS_PX = (14.0, 25.0)
RIM = np.float32(0.12)  # of a shape's radius, black on a light shape and white on a dark one
PERIOD_PX = (9.0, 15.0)
NOISE_LEVELS = 8.0


def scene_seed(stream: Literal["pretrain", "train", "val"], index: int) -> int:
    """Return the seed of a stream's scene; no two streams share one."""
    if not 0 <= index < _STREAM_LENGTH:
        raise ValueError(f"index must be 0 to {_STREAM_LENGTH - 1}, but got {index}")
    return _STREAMS.index(stream) * _STREAM_LENGTH + index


def draw_scene(
    seed: int, image_hw: tuple[int, int], *, spread: float = 1.0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the scene of `seed` as an image `(H, W, 3)` and its label map `(H, W)`.

    Labels are indices into `CLASSES`. A larger image shows more of a world of the same scale;
    the scale itself is drawn with the scene. A larger `spread` widens the regions and moves the
    shapes farther apart, but keeps the size of patterns and shapes.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    scale = float(_spread(rng, SCENE_SCALE, ()))
    image, labels = _draw_regions(rng, image_hw, scale, spread)
    _draw_shapes(rng, image, labels, scale, spread)
    image += (rng.random(image_hw, dtype=np.float32)[:, :, None] - 0.5) * np.float32(NOISE_LEVELS)
    return np.floor(np.clip(image + 0.5, 0, 255)).astype(np.uint8), labels


def _draw_regions(
    rng: np.random.Generator, image_hw: tuple[int, int], scale: float, spread: float
) -> tuple[Floats, NDArray[np.uint8]]:
    """Cover the image with warped Voronoi cells, each of one texture; returns image and labels."""
    cell_px = REGION_PX * scale * spread
    n_rows, n_columns = (int(side / cell_px) + 6 for side in image_hw)
    cell = _voronoi(rng, image_hw, cell_px, (n_rows, n_columns)).ravel()
    n_cells = n_rows * n_columns
    texture = (rng.random(n_cells) * len(TEXTURES)).astype(np.uint8)
    cosine, sine = _direction(rng, n_cells)
    period = _spread(rng, PERIOD_PX, (n_cells,)) * np.float32(scale)
    phase = rng.random((2, n_cells), dtype=np.float32)
    first, second = _contrasting_colours(rng, n_cells)

    labels = texture[cell]
    image = np.empty((cell.size, 3), dtype=np.float32)
    for index, mix in enumerate(TEXTURE_MIX):
        pixels = np.flatnonzero(labels == index)
        at = cell[pixels]
        y, x = (part.astype(np.float32) for part in np.divmod(pixels, image_hw[1]))
        u = (x * cosine[at] + y * sine[at]) / period[at] + phase[0, at]
        v = (y * cosine[at] - x * sine[at]) / period[at] + phase[1, at]
        share = mix(u, v, period[at])[:, None]
        image[pixels] = first[at] + share * (second[at] - first[at])
    return image.reshape(*image_hw, 3), labels.reshape(image_hw)


def _voronoi(
    rng: np.random.Generator,
    image_hw: tuple[int, int],
    cell_px: float,
    cells_hw: tuple[int, int],
) -> NDArray[np.intp]:
    """Return each pixel's nearest site `(H, W)`: one site per grid cell, the borders warped."""
    y = np.arange(image_hw[0], dtype=np.float32)[:, None] / np.float32(cell_px)
    x = np.arange(image_hw[1], dtype=np.float32)[None, :] / np.float32(cell_px)
    shift = rng.random(8, dtype=np.float32)
    down = y + 2 + shift[0] + 0.10 * wave(1.1 * x + shift[2]) + 0.02 * wave(2.9 * x + shift[3])
    right = x + 2 + shift[1] + 0.10 * wave(1.1 * y + shift[4]) + 0.02 * wave(2.9 * y + shift[5])
    down, right = down.astype(np.float32), right.astype(np.float32)
    row, column = np.floor(down).astype(np.intp), np.floor(right).astype(np.intp)
    site = rng.random((2, *cells_hw), dtype=np.float32)
    nearest = np.full(image_hw, np.inf, dtype=np.float32)
    cell = np.zeros(image_hw, dtype=np.intp)
    for step_down in (-1, 0, 1):
        for step_right in (-1, 0, 1):
            i, j = row + step_down, column + step_right
            index = i * cells_hw[1] + j
            away_y = i + site[0].ravel()[index] - down
            away_x = j + site[1].ravel()[index] - right
            distance = (away_y * away_y + away_x * away_x).astype(np.float32)
            closer = distance < nearest
            nearest[closer] = distance[closer]
            cell[closer] = index[closer]
    return cell


class _Shape(NamedTuple):
    """One shape to draw: its kind, place, size, rotation and colour."""

    kind: int
    y_px: np.float32
    x_px: np.float32
    radius_px: np.float32
    cosine: np.float32
    sine: np.float32
    colour: Floats


def _draw_shapes(
    rng: np.random.Generator, image: Floats, labels: NDArray[np.uint8], scale: float, spread: float
) -> None:
    """Lay plain shapes of random colour, size and rotation over the image, in place."""
    cell_px = SHAPE_CELL_PX * scale * spread
    n_rows, n_columns = (int(side / cell_px) + 2 for side in labels.shape)
    n_shapes = n_rows * n_columns
    at = (0.2 + 0.6 * rng.random((2, n_shapes))) - rng.random((2, 1))
    y_px = ((np.repeat(np.arange(n_rows), n_columns) + at[0]) * cell_px).astype(np.float32)
    x_px = ((np.tile(np.arange(n_columns), n_rows) + at[1]) * cell_px).astype(np.float32)
    kind = (rng.random(n_shapes) * len(SHAPES)).astype(np.intp)
    radius_px = _spread(rng, SHAPE_RADIUS_PX, (n_shapes,)) * np.float32(scale)
    cosine, sine = _direction(rng, n_shapes)
    colour = rng.random((n_shapes, 3), dtype=np.float32) * 255
    for n in np.flatnonzero(rng.random(n_shapes) < SHAPE_SHARE):
        place = (y_px[n], x_px[n], radius_px[n], cosine[n], sine[n])
        _draw_shape(image, labels, _Shape(int(kind[n]), *place, colour[n]))


def _draw_shape(image: Floats, labels: NDArray[np.uint8], shape: _Shape) -> None:
    """Draw one shape within its box, its edge softened over one pixel, lit from one side."""
    reach_px = int(1.3 * shape.radius_px) + 2
    top, left = (max(0, int(centre) - reach_px) for centre in (shape.y_px, shape.x_px))
    bottom, right = (max(0, int(centre) + reach_px) for centre in (shape.y_px, shape.x_px))
    box, box_labels = image[top:bottom, left:right], labels[top:bottom, left:right]
    y, x = np.ogrid[top : top + box.shape[0], left : left + box.shape[1]]
    down = (y.astype(np.float32) - shape.y_px) / shape.radius_px
    along = (x.astype(np.float32) - shape.x_px) / shape.radius_px
    u = along * shape.cosine + down * shape.sine
    v = down * shape.cosine - along * shape.sine
    distance_px = SHAPE_DISTANCE[shape.kind](u, v) * shape.radius_px
    cover = np.clip(np.float32(0.5) - distance_px, 0, 1)[:, :, None]
    lit = shape.colour * (1 + np.float32(0.08) * (u + v)[:, :, None])
    rim = np.float32(0 if shape.colour.sum() > 3 * 127.5 else 255)
    lit += np.clip(distance_px + RIM * shape.radius_px + np.float32(0.5), 0, 1)[:, :, None] * (
        rim - lit
    )
    box += cover * (lit - box)
    box_labels[distance_px < 0] = len(TEXTURES) + shape.kind


def _spread(
    rng: np.random.Generator, bounds: tuple[float, float], shape: tuple[int, ...]
) -> Floats:
    """Draw sizes between two bounds, small ones more often: uniform in 1 / size."""
    low, high = bounds
    share = rng.random(shape)
    return np.asarray(1 / (share / low + (1 - share) / high), dtype=np.float32)


def _direction(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Draw `n` rotations as cosines and sines, by the rational form of the half circle."""
    t = rng.random(n) * 2 - 1
    sign = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    cosine, sine = sign * (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return cosine.astype(np.float32), sine.astype(np.float32)


def _contrasting_colours(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Draw `n` pairs of colours `(n, 3)`; the second is the farthest of four from the first."""
    first = rng.random((n, 3), dtype=np.float32) * 255
    others = rng.random((n, 4, 3), dtype=np.float32) * 255
    apart = ((others - first[:, None]) ** 2).sum(axis=2).argmax(axis=1)
    return first, others[np.arange(n), apart]
