"""Mean intersection over union from pixel counts, and how sure a difference of two is.

A paired bootstrap over images says how much other images could move a difference, a paired t
interval over seeds how much another training could; neither contains the other.

Shape legend: N images, K classes, R resamples.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Pixels of each class in each validation image, three arrays `(N, K)` of int64.

    Ignored pixels are in none of them. `images` is the `names_digest` of the images, "" where that
    is not known.
    """

    correct: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]
    images: str = ""

    @property
    def n_images(self) -> int:
        """Number of images N."""
        return int(self.true.shape[0])


@dataclass(frozen=True)
class Difference:
    """A difference of two mIoU as fractions, with a 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resampled:
    """The mIoU of an evaluation, and that of each bootstrap resample of its images, `(R,)`.

    Those of the same images are of the same resamples. `truth` is a digest of the true pixels.
    """

    miou: float
    of_resamples: NDArray[np.float64]
    n_images: int
    images: str
    truth: str


def names_digest(names: Sequence[str]) -> str:
    """Return a digest of images' names in order: equal digests mean the same images."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def class_iou(counts: Counts) -> NDArray[np.float64]:
    """Return the intersection over union of each class, `(K,)`.

    NaN for a class that is in neither prediction nor truth; 0 for one that is only predicted.
    """
    return _iou(counts.correct.sum(0), counts.predicted.sum(0), counts.true.sum(0))


def miou(counts: Counts) -> float:
    """Return the mean over classes present in prediction or truth, a fraction.

    Source: torchmetrics `MulticlassJaccardIndex(average="macro")`, which a test compares with.

    Raises:
        ValueError: no pixel has a label.
    """
    if not counts.true.any():
        raise ValueError("mIoU needs at least one labelled pixel, but got none")
    return float(np.nanmean(class_iou(counts)))


def resample(counts: Counts, *, n_resamples: int = 2000, seed: int = 0) -> Resampled:
    """Return the mIoU of an evaluation and of resamples, which the seed alone draws."""
    truth = hashlib.sha256(counts.true.tobytes()).hexdigest()
    weights = _weights(counts.n_images, n_resamples, seed)
    of_resamples = _resampled_miou(counts, weights)
    return Resampled(miou(counts), of_resamples, counts.n_images, counts.images, truth)


def difference_of(a: Sequence[Resampled], b: Sequence[Resampled]) -> Difference:
    """Return the mean mIoU of `a` less that of `b`, with the percentile interval over images.

    All must be of the same images in the same order, resampled alike. Where a side has several,
    such as students of several seeds, their mIoU are averaged.

    Raises:
        ValueError: the images differ, or a side is empty.
    """
    if not a or not b:
        raise ValueError("a difference needs an evaluation on both sides, but one is empty")
    if len({(one.images, one.truth, one.n_images) for one in (*a, *b)}) > 1:
        raise ValueError("a difference needs the same images on both sides, but they differ")
    resampled = [np.mean([one.of_resamples for one in side], axis=0) for side in (a, b)]
    value = [np.mean([one.miou for one in side]) for side in (a, b)]
    return Difference(float(value[0] - value[1]), *interval_of(resampled[0] - resampled[1]))


def interval_of(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % percentile interval of a value from that of each resample, `(R,)`.

    A resample of images without any label has no mIoU (NaN) and says nothing.
    """
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def difference_over_seeds(a: Sequence[float], b: Sequence[float]) -> Difference | None:
    """Return the mean of `a` less `b`, seed by seed, with the t interval of n - 1 degrees.

    A side that no seed can affect repeats its value. Fewer than two seeds have no interval: None.
    """
    from scipy.stats import t  # late: it takes a second

    each = np.subtract(a, b)
    if len(each) < 2:
        return None
    reach = t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / math.sqrt(len(each))
    return Difference(float(each.mean()), float(each.mean() - reach), float(each.mean() + reach))


@lru_cache(maxsize=2)
def _weights(n_images: int, n_resamples: int, seed: int) -> NDArray[np.float64]:
    """Return how often each image is in each resample, `(R, N)`.

    Pixel counts are far below 2**53, so float64 is exact, and unlike int64 it has a fast product.
    """
    share = np.full(n_images, 1 / n_images)
    draws = np.random.default_rng(seed).multinomial(n_images, share, size=n_resamples)
    return draws.astype(np.float64)


def _resampled_miou(counts: Counts, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mIoU of each resample, `(R,)`; `weights` `(R, N)` counts each image in it.

    The mean is over the full set's classes, except those that do not occur in the resample's truth:
    only the truth decides, so both sides of a difference leave out the same classes.
    """
    correct, predicted, true = (
        weights @ pixels for pixels in (counts.correct, counts.predicted, counts.true)
    )
    occurs = true > 0
    total = np.where(occurs, _iou(correct, predicted, true), 0.0).sum(axis=1)
    n_never_true = int((counts.predicted.any(axis=0) & ~counts.true.any(axis=0)).sum())
    n_occurring = occurs.sum(axis=1)
    mean = np.full(len(weights), np.nan)
    np.divide(total, n_occurring + n_never_true, out=mean, where=n_occurring > 0)
    return mean


def _iou(correct: Pixels, predicted: Pixels, true: Pixels) -> NDArray[np.float64]:
    union = predicted + true - correct
    iou = np.full(union.shape, np.nan)
    np.divide(correct, union, out=iou, where=union > 0)
    return iou
