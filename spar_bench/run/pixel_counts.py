"""Read the images of a validation set in several ways, and count their pixels class by class.

Shape legend: N images, K classes, M ways of reading an image.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spar_bench.accuracy import Counts, names_digest
from spar_bench.datasets.base import IGNORED, Dataset, Mask, Sample
from spar_bench.errors import DataError, SparBenchError
from spar_bench.inference import Inference, Resize
from spar_bench.run.segment import Segmenter

T = TypeVar("T")


@dataclass(frozen=True)
class Skipped:
    """An image that could not be read: its index in the data set, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class ReadImage:
    """An image and its labels, or why there are none, by the place of the inference that reads."""

    sample: Sample
    labels: dict[int, Mask | SparBenchError]


class PixelCounts:
    """Pixels of each class, image by image, for each of several inferences.

    `confusion` is `(M, K, K)` and `pixels` `(M, 3, N, K)`: correct, predicted and true. `names` are
    the images counted so far, `skipped` those left out. `failures` has why an inference cannot go
    on, by its place. `first` is the index in the data set of the first image.
    """

    def __init__(
        self, inferences: Sequence[Inference], n_images: int, n_classes: int, *, first: int = 0
    ) -> None:
        self.inferences, self.first = inferences, first
        self.confusion = np.zeros((len(inferences), n_classes, n_classes), np.int64)
        self.pixels = np.zeros((len(inferences), 3, n_images, n_classes), np.int64)
        self.names: list[str] = []
        self.skipped: list[Skipped] = []
        self.failures: dict[int, SparBenchError] = {}

    @property
    def n_done(self) -> int:
        """The number of processed images, including those left out."""
        return len(self.names) + len(self.skipped)

    @property
    def left(self) -> list[int]:
        """The places of the inferences that have not failed."""
        return [place for place in range(len(self.inferences)) if place not in self.failures]

    def add(self, image: ReadImage | DataError) -> None:
        """Count the next image, or leave it out."""
        if isinstance(image, DataError):
            self.skipped.append(Skipped(self.first + self.n_done, str(image)))
            return
        for place, labels in image.labels.items():
            if isinstance(labels, SparBenchError):
                self.failures[place] = labels
                continue
            confusion = confusion_of(image.sample.mask, labels, self.confusion.shape[1])
            self.confusion[place] += confusion
            self.pixels[place, :, len(self.names)] = counts_of(confusion)
        self.names.append(image.sample.name)

    def of(self, place: int, display_name: str) -> Counts:
        """Return what was counted for one inference.

        Raises:
            SparBenchError: it failed.
            DataError: no image of the data set of that name was read, or no pixel has a label.
        """
        if place in self.failures:
            raise self.failures[place]
        if not self.names:
            raise DataError(
                f"data set {display_name}: must have a readable image, but none of "
                f"{len(self.skipped)} is; the first reason: {self.skipped[0].reason}"
            )
        correct, predicted, true = self.pixels[place, :, : len(self.names)]
        counts = Counts(correct, predicted, true, names_digest(self.names))
        if not counts.true.any():
            raise DataError(
                f"data set {display_name}: its masks must label a pixel, but all "
                f"{counts.n_images} hold only {IGNORED}, which is ignored; write class indices "
                "from 0 into them"
            )
        return counts


def read_images(
    segmenter: Segmenter, dataset: Dataset, resize: Resize, counts: PixelCounts
) -> Iterator[ReadImage]:
    """Yield each image that `counts` lacks, read in all ways that have not failed; add it there.

    Raises:
        DataError: an image or mask cannot be read.
    """
    for one in prepared(segmenter, dataset, resize, range(counts.n_done, len(dataset))):
        if isinstance(one, DataError):
            raise one
        yield labelled(segmenter, *one, counts)
        if not counts.left:
            return


def prepared(
    segmenter: Segmenter,
    dataset: Dataset,
    resize: Resize,
    indices: Iterable[int],
    n_threads: int = 0,
) -> Iterator[tuple[Sample, Tensor] | DataError]:
    """Yield samples and their images, resized and normalised, or why one is unreadable."""

    def ready(sample: Sample) -> tuple[Sample, Tensor]:
        return sample, segmenter.prepare(sample.image, resize.of(sample.image.shape))

    return read_samples(dataset, indices, n_threads, ready)


def labelled(segmenter: Segmenter, sample: Sample, image: Tensor, counts: PixelCounts) -> ReadImage:
    """Label a prepared image in all ways that have not failed."""
    places, (height, width) = counts.left, sample.mask.shape
    inferences = [counts.inferences[place] for place in places]
    labels = segmenter.read(image, (height, width), inferences)
    return ReadImage(sample, dict(zip(places, labels, strict=True)))


def read_samples(
    dataset: Dataset, indices: Iterable[int], n_threads: int, ready: Callable[[Sample], T]
) -> Iterator[T | DataError]:
    """Yield what `ready` makes of samples, in the order of their indices, or why one is unreadable.

    Threads work ahead.
    """

    def read(index: int) -> T | DataError:
        try:
            return ready(dataset.sample(index))
        except DataError as error:
            return error

    if n_threads == 0:
        yield from map(read, indices)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        ahead: deque[Future[T | DataError]] = deque()
        for index in indices:
            ahead.append(pool.submit(read, index))
            if len(ahead) > 2 * n_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def confusion_of(truth: Mask, labels: Mask, n_classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix `(K, K)` of one image; rows are truth, columns predictions."""
    seen = truth != IGNORED
    pairs = truth[seen].astype(np.int64) * n_classes + labels[seen]
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def counts_of(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return an image's correct, predicted and true pixels of each class, `(3, K)`."""
    return np.stack([confusion.diagonal(), confusion.sum(0), confusion.sum(1)])
