"""Paired differences of mIoU between aggregates: over images by bootstrap, over seeds by t."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from spar_bench.accuracy import Difference, Resampled, difference_of, difference_over_seeds
from spar_bench.report.aggregates import Aggregate, agrees, panels_of, stride_series
from spar_bench.report.measuring import Resampler
from spar_bench.report.series import RESOLUTION, Axis, swept_axes
from spar_bench.values import METHODS

FEW_SEEDS = 5
"""With fewer seeds, an interval over seeds is wide, and itself uncertain."""


@dataclass(frozen=True)
class Comparison:
    """The mIoU of `a` minus that of `b` on the same images, and with the same seeds.

    `swept` is the key in which alone they differ, "" for two methods or two strides of a teacher.
    `over_images` and `over_seeds` have one value and each an interval; None with fewer than two
    seeds.
    """

    a: Aggregate
    b: Aggregate
    swept: str
    over_images: Difference
    n_images: int
    over_seeds: Difference | None
    n_seeds: int

    @property
    def names(self) -> tuple[str, str]:
        """Names of both sides, which say the resolution if it differs."""
        if self.a.panel == self.b.panel:
            return self.a.marked_name, self.b.marked_name
        a, b = (f"{e.marked_name} at {e.panel.eval_short_side_px} px" for e in (self.a, self.b))
        return a, b


def comparisons(aggregates: list[Aggregate], resampler: Resampler) -> list[Comparison]:
    """Return the comparisons of interest for which there are counts of the same images.

    First those of methods and of a teacher's strides, then those along what was swept.
    """
    pairs = [*(("", *pair) for pair in _pairs(aggregates)), *_swept_pairs(aggregates)]
    found = (_compare(swept, a, b, resampler) for swept, a, b in pairs)
    return [comparison for comparison in found if comparison is not None]


def _compare(swept: str, a: Aggregate, b: Aggregate, resampler: Resampler) -> Comparison | None:
    """Return the comparison of the seeds that both have, or None without common images."""
    of_a, of_b = _by_seed(a, resampler), _by_seed(b, resampler)
    if None not in of_a and None not in of_b:
        seeds = [seed for seed in of_a if seed in of_b]
        of_a, of_b = ({seed: side[seed] for seed in seeds} for side in (of_a, of_b))
    every = [*of_a.values(), *of_b.values()]
    if not of_a or not of_b or len({(one.images, one.truth) for one in every}) > 1:
        return None
    n_seeds = max((len(side) for side in (of_a, of_b) if None not in side), default=0)
    sides = [[one.miou for one in side.values()] for side in (of_a, of_b)]
    return Comparison(
        a, b, swept,
        over_images=difference_of(list(of_a.values()), list(of_b.values())),
        n_images=every[0].n_images,
        over_seeds=difference_over_seeds(*sides),
        n_seeds=n_seeds,
    )  # fmt: skip


def _by_seed(aggregate: Aggregate, resampler: Resampler) -> dict[int | None, Resampled]:
    """Return what is known of an aggregate's evaluations, by seed."""
    found = zip(aggregate.seeds, map(resampler, aggregate.evaluations), strict=True)
    return {seed: one for seed, one in found if one is not None}


def _pairs(aggregates: list[Aggregate]) -> Iterator[tuple[Aggregate, Aggregate]]:
    """Yield the pairs of interest, data set by data set.

    Single pass against the coarsest stride, every finer stride against the coarsest, each stride
    against the next finer (and so the next coarser), students against single pass and teacher.
    """
    for panel in panels_of(aggregates):
        here = [aggregate for aggregate in aggregates if aggregate.panel == panel]
        of = {method: [each for each in here if each.method == method] for method in METHODS}
        for coarsest, *finer in stride_series(of["teacher"]):
            yield from ((coarsest, other) for other in of["pretrained"] if agrees(other, coarsest))
            yield from ((stride, coarsest) for stride in finer)
            yield from pairwise(finer)
        for student in of["student"]:
            others = (*of["pretrained"], *of["teacher"])
            yield from ((student, other) for other in others if agrees(other, student))


def _swept_pairs(aggregates: list[Aggregate]) -> Iterator[tuple[str, Aggregate, Aggregate]]:
    """Yield each swept key with pairs that differ in it alone: every value against the first.

    A teacher's strides are left out, which `_pairs` has.
    """
    for axis in swept_axes(aggregates):
        for method in METHODS:
            if (method, axis.key) == ("teacher", "stride_px"):
                continue
            own = [each for each in aggregates if each.method == method and axis.moves(each)]
            for first, *others in _alike(own, axis):
                yield from ((axis.key, other, first) for other in others)


def _alike(aggregates: list[Aggregate], axis: Axis) -> list[list[Aggregate]]:
    """Group aggregates that differ along an axis alone, in the order of its values."""
    groups: dict[tuple[Any, ...], list[Aggregate]] = {}
    for each in aggregates:
        place = each.panel.dataset if axis.key == RESOLUTION else each.panel
        rest = (f"{name} {value}" for name, value in each.settings.items() if name != axis.key)
        groups.setdefault((place, *rest), []).append(each)
    at = {str(value): place for place, value in enumerate(axis.values)}
    return [
        sorted((each for each in group if each.miou is not None), key=lambda e: at[str(axis.of(e))])
        for group in groups.values()
        if any(each.miou is not None for each in group)
    ]
