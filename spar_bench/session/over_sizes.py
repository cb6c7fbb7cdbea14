"""What a method costs over the sizes of a data set's images: FLOPs of each, latency by a curve.

The curve is `a + b * GFLOPs + c * pixels` with no factor below zero, fitted to the medians of a few
sizes by least squares. It has at most as many terms as there are medians: the GFLOPs come first,
then the constant, then the pixels. Where a refiner states no FLOPs, there are only the last two.

Shape legend: N sizes, T terms.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spar_bench.plan.trials import PlannedSizes
from spar_bench.results import OverSizes
from spar_bench.stages import cost
from spar_bench.stages.latency import Timings

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Milliseconds of reading an image, by its work; `base_ms` is what any image takes."""

    base_ms: float
    ms_a_gflop: float
    ms_a_megapixel: float

    def at(self, gflops: float | None, megapixels: float) -> float:
        """Return the latency of an image in milliseconds."""
        return self.base_ms + self.ms_a_gflop * (gflops or 0.0) + self.ms_a_megapixel * megapixels


@dataclass(frozen=True)
class Point:
    """A size, by its work, and the median latency that was measured there."""

    gflops: float | None
    megapixels: float
    ms: float


def fitted(points: list[Point]) -> Curve:
    """Return the curve closest to points that all have GFLOPs, or all have none."""
    from scipy.optimize import nnls  # late: a plan does without it

    columns: dict[str, list[Any]] = {
        "ms_a_gflop": [one.gflops for one in points],
        "base_ms": [1.0 for _ in points],
        "ms_a_megapixel": [one.megapixels for one in points],
    }
    if points[0].gflops is None:
        del columns["ms_a_gflop"]
    names = list(columns)[: len(points)]
    terms = np.array([columns[name] for name in names], dtype=np.float64).T  # (N, T)
    scale = terms.max(axis=0)  # of one order, whatever the units
    factors, _ = nnls(terms / scale, np.array([one.ms for one in points]))
    found = dict(zip(names, (factors / scale).tolist(), strict=True))
    return Curve(**dict.fromkeys(("base_ms", "ms_a_gflop", "ms_a_megapixel"), 0.0) | found)


def left_out_error(points: list[Point]) -> float | None:
    """Return the mean relative error at each point of the curve through the others; None of one."""
    if len(points) < 2:
        return None
    errors = []
    for place, one in enumerate(points):
        curve = fitted(points[:place] + points[place + 1 :])
        errors.append(abs(curve.at(one.gflops, one.megapixels) / one.ms - 1))
    return float(np.mean(errors))


def over_sizes(line: PlannedSizes, timings: Timings | None) -> OverSizes:
    """Return the cost of a planned line of sizes.csv, latency as far as all its sizes are timed."""
    point, sizes = line.point, line.sizes
    reading = cost.Stage.of(point, line.method, line.image_hw, n_queries=point.n_queries(line.data))
    flops = {hw: reading.settings.at(hw).flops(reading.places.refiner) for hw in sizes}
    gflops = {hw: None if one is None else one / 1e9 for hw, one in flops.items()}
    return OverSizes(
        n_images=sum(sizes.values()),
        n_sizes=len(sizes),
        **_of_work(gflops, sizes),
        **_of_time(line, gflops, timings),
    )


def _of_work(
    gflops: Mapping[tuple[int, int], float | None], sizes: Mapping[tuple[int, int], int]
) -> dict[str, Any]:
    """Return mean, sum and percentiles of the GFLOPs of all images; nothing if they are unknown."""
    known = [value for value in gflops.values() if value is not None]
    if len(known) < len(sizes):
        return {}
    of_images = np.repeat(known, [sizes[image_hw] for image_hw in gflops])
    p10, p50, p90 = np.percentile(of_images, [10, 50, 90]).tolist()
    return {
        "gflops_mean": float(of_images.mean()),
        "gflops_sum": float(of_images.sum()),
        "gflops_p10": p10,
        "gflops_p50": p50,
        "gflops_p90": p90,
    }


def _of_time(
    line: PlannedSizes, gflops: Mapping[tuple[int, int], float | None], timings: Timings | None
) -> dict[str, Any]:
    """Return the curve, its error and the mean of all images; nothing if a size is not timed."""
    spanning = line.spanning
    if timings is None or not spanning.keys() or not timings.by_key.keys() >= {*spanning.values()}:
        return {}
    points = [
        Point(gflops[hw], math.prod(hw) / 1e6, timings.by_key[key].latency_p50_ms)
        for hw, key in spanning.items()
    ]
    curve = fitted(points)
    n_images = sum(line.sizes.values())
    total_ms = sum(
        count * curve.at(gflops[hw], math.prod(hw) / 1e6) for hw, count in line.sizes.items()
    )
    notes = dict.fromkeys(note for key in spanning.values() if (note := timings.note(key)))
    return {
        "n_timed": len(points),
        "latency_mean_ms": total_ms / n_images,
        "images_per_s": 1e3 * n_images / total_ms,
        "fit_error": left_out_error(points),
        "base_ms": curve.base_ms,
        "ms_a_gflop": curve.ms_a_gflop,
        "ms_a_megapixel": curve.ms_a_megapixel,
        "fit_note": "; ".join(notes),
    }
