"""Place labels beside points: covering neither each other nor a point, and inside the axes.

Legend: L labels, M candidate places, N points, P dots along curves. A box is (left, bottom, right,
top); all lengths are of one unit, say pixels, y upwards.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

Floats = NDArray[np.float64]

CROWD = 4

_ANGLES = np.deg2rad([0, 180, 90, 270, 45, 135, 315, 225, 20, 160, 340, 200, 70, 110, 250, 290])
_RINGS = 14
_PASSES = 3
_LEADER_BLOCKED = 60.0
_CURVE_COVERED = 4.0
_AT_ONCE = 32


@dataclass(frozen=True)
class Surroundings:
    """What labels must keep clear of.

    They stay inside `frame` `(4,)` and off the squares of half side `radius` around `points`
    `(N, 2)`; they should not cover the dots `curves` `(P, 2)`.
    """

    frame: Floats
    points: Floats
    radius: float
    curves: Floats

    @property
    def taken(self) -> Floats:
        """Return the boxes that points cover, `(N, 4)`."""
        return np.concatenate([self.points - self.radius, self.points + self.radius], axis=1)


def place_labels(anchors: Floats, sizes: Floats, around: Surroundings) -> list[Floats | None]:
    """Return the box of each label, or None if the frame has no room for it.

    Args:
        anchors: The points that are labelled, `(L, 2)`.
        sizes: Width and height of each label, `(L, 2)`.
        around: What labels must keep clear of, including the labelled points.
    """
    order = np.argsort(around.curves[:, 0], kind="stable")
    around = replace(around, curves=around.curves[order])
    boxes: list[Floats | None] = [None] * len(anchors)
    stacked = _stack(anchors, sizes, around)
    for i, box in stacked.items():
        boxes[i] = box
    crowded_first = np.argsort(-_neighbours(anchors, sizes), kind="stable")
    for _ in range(_PASSES):
        for i in (i for i in crowded_first if i not in stacked):
            others = [box for j, box in enumerate(boxes) if j != i and box is not None]
            taken = np.array([*around.taken, *others])
            candidates = _rings(anchors[i], sizes[i], around.radius)
            boxes[i] = _best(candidates, anchors[i], taken, around)
            if boxes[i] is None:
                boxes[i] = _best(_everywhere(sizes[i], around.frame), anchors[i], taken, around)
    return boxes


def overlap(a: Floats, b: Floats) -> NDArray[np.bool_]:
    """Say which boxes of `a` `(M, 4)` intersect which of `b` `(N, 4)`, as `(M, N)`."""
    # Side by side: numpy is slow along a last axis of two.
    (left, bottom, right, top), others = a.T[:, :, None], b.T[:, None, :]
    across = (left < others[2]) & (right > others[0])
    return np.asarray(across & (bottom < others[3]) & (top > others[1]))


def _stack(anchors: Floats, sizes: Floats, around: Surroundings) -> dict[int, Floats]:
    """Write the labels of points above each other as a column beside them, in their order.

    Returns nothing if points are few or spread out enough, or if a column does not fit.
    """
    order = np.lexsort((anchors[:, 1], np.round(anchors[:, 0] / (2 * around.radius))))
    crowds = np.split(order, np.flatnonzero(np.diff(anchors[order, 0]) > 2 * around.radius) + 1)
    stacked: dict[int, Floats] = {}
    for crowd in crowds:
        height = sizes[crowd, 1].max(initial=0.0)
        wanted = np.sort(anchors[crowd, 1])
        if len(crowd) < CROWD or np.count_nonzero(np.diff(wanted) < height) < CROWD - 2:
            continue
        crowd = crowd[np.argsort(anchors[crowd, 1], kind="stable")]
        steps = height * np.arange(len(crowd))
        middle = isotonic_regression(wanted - steps).x
        low, high = around.frame[1] + height / 2, around.frame[3] - height / 2 - steps[-1]
        middle = np.clip(middle, low, max(low, high)) + steps
        left = anchors[crowd, 0].max() + 3.5 * around.radius
        centres = np.stack([left + sizes[crowd, 0] / 2, middle], axis=1)
        boxes = np.concatenate([centres - sizes[crowd] / 2, centres + sizes[crowd] / 2], axis=1)
        inside = (boxes[:, :2] >= around.frame[:2]).all() & (boxes[:, 2:] <= around.frame[2:]).all()
        if inside and not overlap(boxes, around.taken).any():
            stacked.update(zip(crowd.tolist(), boxes, strict=True))
    return stacked


def _neighbours(anchors: Floats, sizes: Floats) -> NDArray[np.int64]:
    """Count the points within a label's size of each point, `(L,)`."""
    apart = np.abs(anchors[:, None] - anchors[None])
    return np.asarray((apart < sizes[:, None]).all(-1).sum(1))


def _rings(anchor: Floats, size: Floats, radius: float) -> Floats:
    """Return boxes on rings around a point, the nearest first, `(M, 4)`."""
    direction = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    gaps = radius * 1.25 + size[1] * 0.45 * np.arange(_RINGS)
    # Near an axis, a side of the box touches the ring; in between, a corner does.
    half = size / 2 * np.clip(direction * np.sqrt(2), -1, 1)
    centres = anchor + direction * gaps[:, None, None] + half
    return _boxes(centres.reshape(-1, 2), size)


def _everywhere(size: Floats, frame: Floats) -> Floats:
    """Return boxes on a grid over the whole frame, `(M, 4)`."""
    x, y = (np.arange(frame[k] + size[k] / 2, frame[k + 2], size[1] / 2) for k in range(2))
    return _boxes(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), size)


def _boxes(centres: Floats, size: Floats) -> Floats:
    return np.concatenate([centres - size / 2, centres + size / 2], axis=1)


def _best(candidates: Floats, anchor: Floats, taken: Floats, around: Surroundings) -> Floats | None:
    """Return the free candidate of least cost: near its point, off the curves, leader clear."""
    frame = around.frame
    inside = (candidates[:, :2] >= frame[:2]).all(1) & (candidates[:, 2:] <= frame[2:]).all(1)
    free = candidates[inside]
    free = free[~overlap(free, taken).any(1)]
    if not len(free):
        return None
    nearest = np.clip(anchor, free[:, :2], free[:, 2:])
    cost = np.linalg.norm(nearest - anchor, axis=1)
    cost += _CURVE_COVERED * _covered(free, around.curves)
    by_cost = np.argsort(cost, kind="stable")
    found, least = by_cost[0], np.inf
    for some in np.split(by_cost, range(_AT_ONCE, len(by_cost), _AT_ONCE)):
        if cost[some[0]] >= least:
            break  # a leader that is blocked only adds to it
        blocked = _LEADER_BLOCKED * _blocked(nearest[some], anchor, taken, around.radius)
        total = cost[some] + blocked
        if total.min() < least:
            found, least = some[int(np.argmin(total))], total.min()
    return np.asarray(free[int(found)])


def _covered(boxes: Floats, dots: Floats) -> NDArray[np.int64]:
    """Count the dots inside each box, `(M,)`; `dots` are sorted by x."""
    first = np.searchsorted(dots[:, 0], boxes[:, 0], side="right")
    last = np.searchsorted(dots[:, 0], boxes[:, 2], side="left")
    counts = [
        np.count_nonzero((dots[i:j, 1] > low) & (dots[i:j, 1] < high))
        for i, j, low, high in zip(first, last, boxes[:, 1], boxes[:, 3], strict=True)
    ]
    return np.array(counts, dtype=np.int64)


def _blocked(ends: Floats, anchor: Floats, taken: Floats, radius: float) -> NDArray[np.int64]:
    """Count the boxes crossed by the straight line from a point to each label, `(M,)`."""
    way = np.linspace(0.0, 1.0, 24)[:, None, None]
    dots = anchor + way * (ends - anchor)
    dots = np.concatenate([dots, dots], axis=-1)
    own = (np.abs((taken[:, :2] + taken[:, 2:]) / 2 - anchor) < radius / 4).all(1)
    reach = np.concatenate([np.minimum(ends.min(0), anchor), np.maximum(ends.max(0), anchor)])
    near = taken[~own & overlap(reach[None], taken)[0]]
    hit = np.stack([overlap(step, near) for step in dots])
    return np.asarray(hit.any(0).sum(1))
