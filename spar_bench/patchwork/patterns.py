"""The patterns of textures and the outlines of shapes, as functions of coordinates.

A texture maps coordinates in periods to the share of its second colour, 0 to 1, softened over one
pixel. A shape maps coordinates in radii to the signed distance from its outline in radii, negative
inside; outside a corner, it is the distance to the nearer side.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def wave(t: Floats) -> Floats:
    """Return a smooth wave of period 1 between -1 and 1, made of parabolas."""
    f = t - np.floor(t)
    return np.where(f < 0.5, 16 * f * (0.5 - f), -16 * (f - 0.5) * (1 - f)).astype(np.float32)


def _beyond(value: Floats, threshold: float, period_px: Floats) -> Floats:
    """Step from 0 to 1 where `value` (in periods) passes `threshold`, softened over one pixel."""
    return np.clip((value - np.float32(threshold)) * period_px + np.float32(0.5), 0, 1)


def _to_line(t: Floats) -> Floats:
    """Distance to the nearest whole number, 0 to 0.5."""
    distance: Floats = np.abs(t - np.floor(t + np.float32(0.5)))
    return distance


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
    return _beyond(_to_line(u + np.float32(0.4) * wave(v * np.float32(0.5))), 0.25, period_px)


def _bricks(u: Floats, v: Floats, period_px: Floats) -> Floats:
    row = np.floor(v)
    along = u / 2 + (row - 2 * np.floor(row / 2)) / 2
    joint = np.minimum(_to_line(v), 2 * _to_line(along))
    return _beyond(joint, 0.13, period_px)


def _lattice(u: Floats, v: Floats, period_px: Floats) -> Floats:
    return _beyond(np.minimum(_to_line(u), _to_line(v)), 0.13, period_px)


def _gravel(u: Floats, v: Floats, period_px: Floats) -> Floats:
    """Grains, three per period, each shaded by a hash of its place."""
    i = np.floor(u * 3).astype(np.int64).astype(np.uint32)
    j = np.floor(v * 3).astype(np.int64).astype(np.uint32)
    mixed = i * np.uint32(0x9E3779B1) ^ j * np.uint32(0x85EBCA77)
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    shade: Floats = ((mixed ^ (mixed >> np.uint32(12))) & np.uint32(255)).astype(np.float32)
    return shade / 255


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
    distance: Floats = np.minimum(np.maximum(a - 1, b - arm), np.maximum(a - arm, b - 1))
    return distance


def _heart(u: Floats, v: Floats) -> Floats:
    """A square on its corner with half a disc on each of the upper sides."""
    a = np.abs(u)
    point = (a + np.abs(v)) * np.float32(0.7071068) - np.float32(0.6)
    lobe_u, lobe_v = a - np.float32(0.4243), v + np.float32(0.4243)
    lobe = np.sqrt(lobe_u * lobe_u + lobe_v * lobe_v) - np.float32(0.6)
    distance: Floats = np.minimum(point, lobe)
    return distance


TEXTURE_MIX: list[Callable[[Floats, Floats, Floats], Floats]] = [
    _stripes,
    _checkers,
    _dots,
    _waves,
    _bricks,
    _lattice,
    _gravel,
]
SHAPE_DISTANCE: list[Callable[[Floats, Floats], Floats]] = [
    _disc,
    _square,
    _triangle,
    _star,
    _ring,
    _cross,
    _heart,
]
