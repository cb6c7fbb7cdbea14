"""Draw procedural scenes with exact label maps: textured regions, and plain shapes lying on them.

Legend: H, W image height and width in pixels; N cells of the region grid; P pixels of one class.

Everything is coordinate arithmetic: only `+ - * / sqrt floor abs` and comparisons touch a pixel,
which IEEE 754 rounds alike everywhere, and only uniform draws are taken from the generator, so a
seed gives the same scene on every machine. For this reason there is no `sin` in here.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TEXTURES: list[list[str]] = [
    ["stripes", "striped cloth"],
    ["checkers", "checkerboard"],
    ["dots", "polka dots"],
    ["waves", "ripples"],
    ["bricks", "brick wall"],
    ["lattice", "wire mesh"],
    ["gravel", "pebbles"],
]
SHAPES: list[list[str]] = [
    ["disc", "circle"],
    ["square", "box"],
    ["triangle"],
    ["star"],
    ["ring", "donut"],
    ["cross", "plus sign"],
    ["heart"],
]
CLASSES: list[list[str]] = TEXTURES + SHAPES

SCENE_SCALE = (0.6, 1.6)
REGION_PX = 76.0
SHAPE_CELL_PX = 80.0
SHAPE_SHARE = 0.85
SHAPE_RADIUS_PX = (15.0, 31.0)
PERIOD_PX = (9.0, 15.0)
NOISE_LEVELS = 8.0


def draw_scene(seed: int, image_hw: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the scene of `seed` as an image `(H, W, 3)` and its label map `(H, W)`.

    Labels are indices into `CLASSES`. A larger image shows more of a world of the same scale;
    the scale itself is drawn with the scene.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    scale = float(_spread(rng, SCENE_SCALE, ()))
    image, labels = _draw_regions(rng, image_hw, scale)
    _draw_shapes(rng, image, labels, scale)
    image += (rng.random(image_hw, dtype=np.float32)[:, :, None] - 0.5) * np.float32(NOISE_LEVELS)
    return np.floor(np.clip(image + 0.5, 0, 255)).astype(np.uint8), labels


def _draw_regions(
    rng: np.random.Generator, image_hw: tuple[int, int], scale: float
) -> tuple[Floats, NDArray[np.uint8]]:
    """Cover the image with warped Voronoi cells, each of one texture; returns image and labels."""
    cell_px = REGION_PX * scale
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
    for index, mix in enumerate(_TEXTURE_MIX):
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
    """Assign each pixel its nearest site `(H, W)`, one jittered site a grid cell, borders warped."""
    y = np.arange(image_hw[0], dtype=np.float32)[:, None] / np.float32(cell_px)
    x = np.arange(image_hw[1], dtype=np.float32)[None, :] / np.float32(cell_px)
    shift = rng.random(8, dtype=np.float32)
    down = y + 2 + shift[0] + 0.12 * _wave(1.3 * x + shift[2]) + 0.05 * _wave(2.9 * x + shift[3])
    right = x + 2 + shift[1] + 0.12 * _wave(1.3 * y + shift[4]) + 0.05 * _wave(2.9 * y + shift[5])
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


def _draw_shapes(
    rng: np.random.Generator, image: Floats, labels: NDArray[np.uint8], scale: float
) -> None:
    """Lay plain shapes of random colour, size and rotation over the image, in place."""
    height, width = labels.shape
    cell_px = SHAPE_CELL_PX * scale
    n_rows, n_columns = (int(side / cell_px) + 2 for side in (height, width))
    n_shapes = n_rows * n_columns
    corner = rng.random(2)
    centre_y = (np.repeat(np.arange(n_rows), n_columns) - corner[0] + rng.random(n_shapes)) * cell_px
    centre_x = (np.tile(np.arange(n_columns), n_rows) - corner[1] + rng.random(n_shapes)) * cell_px
    shape = (rng.random(n_shapes) * len(SHAPES)).astype(np.intp)
    radius = _spread(rng, SHAPE_RADIUS_PX, (n_shapes,)) * np.float32(scale)
    cosine, sine = _direction(rng, n_shapes)
    colour, edge = _contrasting_colours(rng, n_shapes)
    is_drawn = rng.random(n_shapes) < SHAPE_SHARE
    for n in np.flatnonzero(is_drawn):
        reach = 1.3 * float(radius[n]) + 2
        top, left = (max(0, int(c[n] - reach)) for c in (centre_y, centre_x))
        bottom = min(height, int(centre_y[n] + reach) + 1)
        right = min(width, int(centre_x[n] + reach) + 1)
        if top >= bottom or left >= right:
            continue
        y = (np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(centre_y[n])) / radius[n]
        x = (np.arange(left, right, dtype=np.float32)[None, :] - np.float32(centre_x[n])) / radius[n]
        u, v = x * cosine[n] + y * sine[n], y * cosine[n] - x * sine[n]
        distance_px = _SHAPE_DISTANCE[shape[n]](u, v) * radius[n]
        cover = np.clip(0.5 - distance_px, 0, 1)[:, :, None]
        shade = np.float32(1) + np.float32(0.08) * (u + v)[:, :, None]
        box = image[top:bottom, left:right]
        box += cover * (colour[n] * shade - box)
        labels[top:bottom, left:right][distance_px < 0] = len(TEXTURES) + shape[n]


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


def _wave(t: Floats) -> Floats:
    """Return a smooth wave of period 1 between -1 and 1, made of parabolas."""
    f = t - np.floor(t)
    return np.where(f < 0.5, 16 * f * (0.5 - f), -16 * (f - 0.5) * (1 - f)).astype(np.float32)


def _beyond(value: Floats, threshold: float, period_px: Floats) -> Floats:
    """Step from 0 to 1 where `value` (in periods) passes `threshold`, softened over one pixel."""
    return np.clip((value - np.float32(threshold)) * period_px + np.float32(0.5), 0, 1)


def _to_line(t: Floats) -> Floats:
    """Distance to the nearest whole number, 0 to 0.5."""
    return np.abs(t - np.floor(t + np.float32(0.5)))


def _stripes(u: Floats, v: Floats, period_px: Floats) -> Floats:
    return _beyond(_to_line(u), 0.25, period_px)


def _checkers(u: Floats, v: Floats, period_px: Floats) -> Floats:
    wide = period_px * np.float32(1.4)
    a = _beyond(_to_line(u / np.float32(1.4)), 0.25, wide)
    b = _beyond(_to_line(v / np.float32(1.4)), 0.25, wide)
    return a + b - 2 * a * b


def _dots(u: Floats, v: Floats, period_px: Floats) -> Floats:
    a, b = _to_line(u), _to_line(v)
    return _beyond(np.sqrt(a * a + b * b), 0.3, period_px)


def _waves(u: Floats, v: Floats, period_px: Floats) -> Floats:
    return _beyond(_to_line(u + np.float32(0.4) * _wave(v * np.float32(0.5))), 0.25, period_px)


def _bricks(u: Floats, v: Floats, period_px: Floats) -> Floats:
    row = np.floor(v)
    along = u / 2 + (row - 2 * np.floor(row / 2)) / 2
    joint = np.minimum(_to_line(v), 2 * _to_line(along))
    return _beyond(joint, 0.13, period_px)


def _lattice(u: Floats, v: Floats, period_px: Floats) -> Floats:
    return _beyond(np.minimum(_to_line(u), _to_line(v)), 0.13, period_px)


def _gravel(u: Floats, v: Floats, period_px: Floats) -> Floats:
    i = np.floor(u * 3).astype(np.int64).astype(np.uint32)
    j = np.floor(v * 3).astype(np.int64).astype(np.uint32)
    mixed = i * np.uint32(0x9E3779B1) ^ j * np.uint32(0x85EBCA77)
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    return ((mixed ^ (mixed >> np.uint32(12))) & np.uint32(255)).astype(np.float32) / 255


def _disc(u: Floats, v: Floats) -> Floats:
    return np.sqrt(u * u + v * v) - 1


def _square(u: Floats, v: Floats) -> Floats:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.85)


def _triangle(u: Floats, v: Floats) -> Floats:
    slope = np.float32(0.8660254) * np.abs(u) + v / 2
    return np.maximum(slope, -v) - np.float32(0.6)


def _star(u: Floats, v: Floats) -> Floats:
    """Five points, by folding the plane twice onto one point's half."""
    u, v = np.abs(u), v + 0
    for normal in ((0.8090170, -0.5877853), (-0.8090170, -0.5877853)):
        a, b = np.float32(normal[0]), np.float32(normal[1])
        over = 2 * np.maximum(a * u + b * v, 0)
        u, v = u - over * a, v - over * b
    u = np.abs(u)
    tilt_u, tilt_v = np.float32(0.8910065), np.float32(0.4539905)
    return (v - np.float32(1.15)) * tilt_v + u * tilt_u


def _ring(u: Floats, v: Floats) -> Floats:
    return np.abs(np.sqrt(u * u + v * v) - np.float32(0.72)) - np.float32(0.3)


def _cross(u: Floats, v: Floats) -> Floats:
    a, b = np.abs(u), np.abs(v)
    arm = np.float32(0.36)
    return np.minimum(np.maximum(a - 1, b - arm), np.maximum(a - arm, b - 1))


def _heart(u: Floats, v: Floats) -> Floats:
    """A square on its corner with half a disc on each of the upper sides."""
    a = np.abs(u)
    point = (a + np.abs(v)) * np.float32(0.7071068) - np.float32(0.6)
    lobe_u, lobe_v = a - np.float32(0.4243), v + np.float32(0.4243)
    return np.minimum(point, np.sqrt(lobe_u * lobe_u + lobe_v * lobe_v) - np.float32(0.6))


_TEXTURE_MIX: list[Callable[[Floats, Floats, Floats], Floats]] = [
    _stripes,
    _checkers,
    _dots,
    _waves,
    _bricks,
    _lattice,
    _gravel,
]
_SHAPE_DISTANCE: list[Callable[[Floats, Floats], Floats]] = [
    _disc,
    _square,
    _triangle,
    _star,
    _ring,
    _cross,
    _heart,
]
