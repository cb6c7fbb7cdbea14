"""Paired differences of mIoU between aggregates, by bootstrap over images."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from spar_bench.accuracy import Counts, Difference, are_paired, paired_difference
from spar_bench.evaluations import Evaluations
from spar_bench.report.aggregates import Aggregate, agrees, panels_of, stride_series


@dataclass(frozen=True)
class Comparison:
    """The mIoU of `a` minus that of `b` on the same images."""

    a: Aggregate
    b: Aggregate
    difference: Difference
    n_images: int

    @property
    def limits(self) -> tuple[float, float, float]:
        """The difference as a fraction, and the ends of its 95 % interval."""
        return self.difference.value, self.difference.low, self.difference.high


def comparisons(aggregates: list[Aggregate], evaluations: Evaluations) -> list[Comparison]:
    """Return the comparisons of interest for which there are counts of the same images."""
    found = []
    for a, b in _pairs(aggregates):
        sides = [_counts(side, evaluations) for side in (a, b)]
        # An unreadable one may have been left out.
        if all(sides) and are_paired([*sides[0], *sides[1]]):
            found.append(Comparison(a, b, paired_difference(*sides), sides[0][0].n_images))
    return found


def _counts(aggregate: Aggregate, evaluations: Evaluations) -> list[Counts]:
    found = [evaluations.counts(key) for key in aggregate.evaluations]
    return [counts for counts in found if counts is not None]


def _pairs(aggregates: list[Aggregate]) -> Iterator[tuple[Aggregate, Aggregate]]:
    """Yield the pairs of interest, data set by data set.

    Single pass against the coarsest stride, every finer stride against the coarsest, each stride
    against the next finer (and so the next coarser), students against single pass and teacher.
    """
    for panel in panels_of(aggregates):
        here = [aggregate for aggregate in aggregates if aggregate.panel == panel]
        for coarsest, *finer in stride_series(here):
            yield from ((coarsest, other) for other in _related(here, coarsest, "pretrained"))
            yield from ((stride, coarsest) for stride in finer)
            yield from pairwise(finer)
        for student in (aggregate for aggregate in here if aggregate.method == "student"):
            yield from ((student, other) for other in _related(here, student, "pretrained"))
            yield from ((student, other) for other in _related(here, student, "teacher"))


def _related(aggregates: list[Aggregate], of: Aggregate, method: str) -> list[Aggregate]:
    return [other for other in aggregates if other.method == method and agrees(other, of)]
