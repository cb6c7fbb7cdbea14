"""Quantities of rows: their means over data sets, and those of resamples of the images.

Shape legend: R resamples of the images.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spar_bench.accuracy import Resampled, resample
from spar_bench.errors import StoreError
from spar_bench.evaluations import Evaluations
from spar_bench.report.page import Source
from spar_bench.results import Results, Row

Values = NDArray[np.float64]


@dataclass
class Resampler:
    """Resamples the images of evaluations, each once, however often it is asked for."""

    evaluations: Evaluations
    _resampled: dict[tuple[str, int], Resampled | None] = field(default_factory=dict)

    def __call__(self, fingerprint: str, seed: int = 0) -> Resampled | None:
        """Return an evaluation resampled; None where its counts are missing."""
        key = fingerprint, seed
        if key not in self._resampled:
            counts = self.evaluations.counts(fingerprint)
            self._resampled[key] = None if counts is None else resample(counts, seed=seed)
        return self._resampled[key]


def quantity(row: Row, name: str) -> float | None:
    """Return a quantity of a row by its name, None where it was not measured.

    Raises:
        StoreError: there is none of that name.
    """
    if name == "miou":
        return row.miou
    if name == "train_gflops":
        return row.training.train_gflops
    if not hasattr(row.cost, name):
        raise StoreError(f"claims: must be about a known quantity, but got {name!r}; sweep again")
    found: float | None = getattr(row.cost, name)
    return found


def why_unmeasured(row: Row, name: str) -> str | None:
    """Return why a row does not have a quantity; None if it does."""
    if row.status != "finished":
        return row.reason or row.status.replace("_", " ")
    return f"{name} was not measured" if quantity(row, name) is None else None


def source_of(name: str, rows: Iterable[Row], results: Results) -> Source:
    """Return where a quantity of some rows of `results` comes from."""
    index = {id(row): number for number, row in enumerate(results.rows)}
    return Source(name, tuple(dict.fromkeys(index[id(row)] for row in rows)))


def mean_over_datasets(rows: list[Row], name: str) -> Values:
    """Return the mean over data sets of the mean of a quantity over a data set's rows, `()`."""
    return _mean(rows, lambda row: np.array(quantity(row, name) or 0.0))


def resampled_mious(sides: list[list[list[Row]]], resampler: Resampler) -> list[Values] | None:
    """Return each side's value for each resample of the images, `(R,)`.

    A resample has the same images for all rows of a data set. None where counts are missing, or are
    of other images.
    """
    rows = [row for side in sides for one in side for row in one]
    mious = dict[str, Values]()
    for number, dataset in enumerate(dict.fromkeys(row.dataset for row in rows)):
        keys = list(dict.fromkeys(r.stages["evaluate"] for r in rows if r.dataset == dataset))
        resampled = [one for key in keys if (one := resampler(key, seed=number)) is not None]
        images = {(one.images, one.truth) for one in resampled}
        if len(resampled) < len(keys) or len(images) > 1:
            return None
        mious |= {key: one.of_resamples for key, one in zip(keys, resampled, strict=True)}
    return [
        total(_mean(one, lambda row: mious[row.stages["evaluate"]]) for one in side)
        for side in sides
    ]


def _mean(rows: list[Row], value: Callable[[Row], Values]) -> Values:
    """Return the mean over data sets of the mean of a value over a data set's rows."""
    by_dataset: dict[str, list[Values]] = {}
    for row in rows:
        by_dataset.setdefault(row.dataset, []).append(value(row))
    mean: Values = np.mean([np.mean(each, axis=0) for each in by_dataset.values()], axis=0)
    return mean


def total(values: Iterable[Values]) -> Values:
    """Return the sum of values of one shape."""
    return np.asarray(sum(values, np.array(0.0)))
