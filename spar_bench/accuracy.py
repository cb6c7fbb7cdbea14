"""Mean intersection over union from pixel counts, and its paired bootstrap over images.

Shape legend: N images, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Counts:
    """Pixels of each class in each validation image, three arrays `(N, K)` of int64.

    Ignored pixels are in none of them.
    """

    correct: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]

    @property
    def n_images(self) -> int:
        """Number of images N."""
        return int(self.true.shape[0])


@dataclass(frozen=True)
class Difference:
    """A difference of two mIoU as fractions, with its 95 % interval over images."""

    value: float
    low: float
    high: float


def class_iou(counts: Counts) -> NDArray[np.float64]:
    """Return the intersection over union of each class, `(K,)`.

    NaN for a class that is in neither prediction nor truth; 0 for one that is only predicted.
    """
    return _iou(counts.correct.sum(0), counts.predicted.sum(0), counts.true.sum(0))


def miou(counts: Counts) -> float:
    """Return the mean over classes present in prediction or truth, a fraction.

    Source: torchmetrics `MulticlassJaccardIndex(average="macro")`, which a test compares with.
    """
    return float(np.nanmean(class_iou(counts)))


def paired_difference(
    a: Counts, b: Counts, *, n_resamples: int = 2000, seed: int = 0
) -> Difference:
    """Return mIoU of `a` less mIoU of `b`, and the percentile bootstrap interval over images.

    Both must hold the same images in the same order; each resample draws the same images for
    both, and keeps the classes of the full set.

    Raises:
        ValueError: the images differ.
    """
    if not np.array_equal(a.true, b.true):
        raise ValueError("a paired difference needs the same images in both, but their truths differ")
    draws = np.random.default_rng(seed).multinomial(
        a.n_images, np.full(a.n_images, 1 / a.n_images), size=n_resamples
    )
    differences = _resampled_miou(a, draws) - _resampled_miou(b, draws)
    low, high = np.quantile(differences, [0.025, 0.975])
    return Difference(miou(a) - miou(b), float(low), float(high))


def _resampled_miou(counts: Counts, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mIoU of each resample; `draws` `(R, N)` says how often each image is in it."""
    iou = _iou(draws @ counts.correct, draws @ counts.predicted, draws @ counts.true)
    present = ~np.isnan(class_iou(counts))
    # A class of the full set that a resample happens to miss is left out of that resample's mean.
    return np.nanmean(iou[:, present], axis=1)


def _iou(
    correct: NDArray[np.int64], predicted: NDArray[np.int64], true: NDArray[np.int64]
) -> NDArray[np.float64]:
    union = predicted + true - correct
    return np.divide(correct, union, out=np.full(union.shape, np.nan), where=union > 0)
