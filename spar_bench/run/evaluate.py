"""Open-vocabulary segmentation of a validation set: pixel counts, for several inferences at once.

Shape legend: N images, K classes, C channels, h x w patch grid.
"""

import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from spar_bench.accuracy import Counts, miou, names_digest
from spar_bench.datasets.base import IGNORED, Dataset, Mask, Sample
from spar_bench.errors import DataError
from spar_bench.files import replace_bytes, replace_text
from spar_bench.plan.cost import shared_flops
from spar_bench.resolve import open_dataset
from spar_bench.run.context import Context
from spar_bench.run.resume import (
    RESUME_FILE,
    SAVE_EVERY_S,
    is_whole,
    load_state,
    save_state,
)
from spar_bench.run.segment import DIVERGED, UNFIT, Segmenter
from spar_bench.run.text import classifier_of, read_queries
from spar_bench.stage import digest
from spar_bench.stages import evaluate
from spar_bench.stages.evaluate import N_PREVIEWS, preview_file


def make_evaluations(
    stages: list[evaluate.Stage], context: Context
) -> list[evaluate.Summary | Exception]:
    """Evaluate all stages of one `batch_key`; writes counts and previews.

    A stage whose own features or labels fail leaves the others alone; an image that cannot be read
    concerns all of them.
    """
    first = stages[0]
    dataset = open_dataset(first.places.dataset, "val")
    segmenter = _segmenter(first, context)
    counts = PixelCounts(stages, len(dataset), context)
    saved_at = time.monotonic()
    try:
        for sample in _samples(dataset, counts.n_done, context.workers):
            context.check()
            context.report(first, counts.n_done / len(dataset))
            if isinstance(sample, Sample):
                _count_image(counts, segmenter, sample)
            elif first.settings.protocol.unreadable == "skip":
                counts.skip(sample)
            else:
                raise sample
            if not counts.left:
                break
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                counts.save()
                saved_at = time.monotonic()
    except Exception:  # interrupted, or failed: the next attempt resumes here
        counts.save()
        raise
    return [counts.result(member) for member in range(len(stages))]


def _segmenter(stage: evaluate.Stage, context: Context) -> Segmenter:
    settings, protocol = stage.settings, stage.settings.protocol
    student = context.finished(stage, "student") if "student" in stage.inputs else None
    queries = read_queries(context.finished(stage, "text")).to(context.device)
    return Segmenter(
        context.backbone(stage.places.backbone, student),
        classifier_of(queries, settings.classes, protocol),
        refiner=stage.places.refiner,
        precision=protocol.precision,
        interpolation=protocol.resize,
        way_out=UNFIT if student is None else DIVERGED,
        device=context.device,
    )


def _samples(dataset: Dataset, first: int, n_threads: int) -> Iterator[Sample | DataError]:
    """Yield the samples from an index on, or why one cannot be read; threads read ahead."""

    def read(index: int) -> Sample | DataError:
        try:
            return dataset.sample(index)
        except DataError as error:
            return error

    if n_threads == 0:
        yield from map(read, range(first, len(dataset)))
        return
    with ThreadPoolExecutor(n_threads) as pool:
        ahead: deque[Future[Sample | DataError]] = deque()
        for index in range(first, len(dataset)):
            ahead.append(pool.submit(read, index))
            if len(ahead) > 2 * n_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _count_image(counts: "PixelCounts", segmenter: Segmenter, sample: Sample) -> None:
    """Read one image in every way that is left, and count its pixels."""
    members, resize = counts.left, counts.stages[0].settings.resize
    inferences = [counts.stages[member].settings.inference for member in members]
    (height, width), image_hw = sample.mask.shape, resize.of(sample.image.shape)
    read = segmenter.read(sample.image, image_hw, (height, width), inferences)
    is_first = not counts.names
    features = segmenter.features(sample.image, image_hw, inferences) if is_first else []
    for index, (member, labels) in enumerate(zip(members, read, strict=True)):
        if isinstance(labels, Exception):
            counts.failures[member] = labels
            continue
        counts.count(member, sample, labels)
        if len(counts.names) < N_PREVIEWS:
            counts.preview(member, sample, labels, features[index] if features else None)
    counts.names.append(sample.name)
    n_reads = 2 if is_first else 1
    counts.context.flops += n_reads * shared_flops(segmenter.backbone.sizes, inferences, image_hw)


def confusion_of(truth: Mask, labels: Mask, n_classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix `(K, K)` of one image; rows are truth, columns predictions."""
    seen = truth != IGNORED
    pairs = truth[seen].astype(np.int64) * n_classes + labels[seen]
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def counts_of(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return an image's correct, predicted and true pixels of each class, `(3, K)`."""
    return np.stack([confusion.diagonal(), confusion.sum(0), confusion.sum(1)])


class PixelCounts:
    """Counts of several stages, image by image; resumes an interrupted attempt.

    `failures` has why a stage of the batch cannot go on, by its place in the batch.
    """

    def __init__(self, stages: list[evaluate.Stage], n_images: int, context: Context) -> None:
        self.context, self.stages = context, stages
        n_classes = len(stages[0].settings.classes)
        self.confusion = np.zeros((len(stages), n_classes, n_classes), np.int64)
        self.counts = np.zeros((len(stages), 3, n_images, n_classes), np.int64)
        self.names: list[str] = []
        self.failures: dict[int, Exception] = {}
        self._skipped: list[dict[str, Any]] = []
        self._batch = digest([stage.fingerprint for stage in stages])
        self._path = context.store.scratch(stages[0]) / RESUME_FILE
        self._resume()

    @property
    def n_done(self) -> int:
        """The number of processed images, including those left out."""
        return len(self.names) + len(self._skipped)

    @property
    def left(self) -> list[int]:
        """The places in the batch of the stages that have not failed."""
        return [member for member in range(len(self.stages)) if member not in self.failures]

    def skip(self, error: DataError) -> None:
        """Leave out the next image, which cannot be read."""
        self._skipped.append({"index": self.n_done, "reason": str(error)})

    def count(self, member: int, sample: Sample, labels: Mask) -> None:
        """Add one image's pixels to a stage."""
        n_classes = self.confusion.shape[1]
        confusion = confusion_of(sample.mask, labels, n_classes)
        self.confusion[member] += confusion
        self.counts[member, :, len(self.names)] = counts_of(confusion)

    def preview(self, member: int, sample: Sample, labels: Mask, features: Tensor | None) -> None:
        """Write a stage's prediction of one image."""
        arrays = {"image": sample.image, "truth": sample.mask, "prediction": labels}
        if features is not None:
            arrays["features"] = features.to(torch.float16).cpu().numpy()
        output = self.context.store.output(self.stages[member])
        content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        replace_bytes(output / preview_file(len(self.names)), content)

    def save(self) -> None:
        """Save the counts so far; not those of a batch with a failure, which changes next time."""
        if self.failures:
            return
        state = {"batch": self._batch, "names": self.names, "skipped": self._skipped}
        tensors = {
            "confusion": torch.from_numpy(self.confusion),
            "counts": torch.from_numpy(self.counts),
        }
        save_state(self._path, tensors, state)

    def _resume(self) -> None:
        resumed = load_state(self._path)
        if resumed is None:
            return
        tensors, state = resumed
        if state["batch"] == self._batch and self._has_previews(len(state["names"])):
            self.confusion = tensors["confusion"].numpy()
            self.counts = tensors["counts"].numpy()
            self.names, self._skipped = state["names"], state["skipped"]

    def _has_previews(self, n_read: int) -> bool:
        """Return whether the files that belong to a resume state still exist, for every stage."""
        outputs = [self.context.store.output(stage) for stage in self.stages]
        names = [preview_file(index) for index in range(min(n_read, N_PREVIEWS))]
        return all(is_whole(output / name) for output in outputs for name in names)

    def result(self, member: int) -> evaluate.Summary | Exception:
        """Write a stage's counts as its output and return its summary, or why it failed."""
        if member in self.failures:
            return self.failures[member]
        stage = self.stages[member]
        correct, predicted, true = self.counts[member, :, : len(self.names)]
        counts = Counts(correct, predicted, true, names_digest(self.names))
        try:
            self._require_images(stage)
            require_labels(counts, stage.places.display_name)
        except DataError as error:
            return error
        arrays = {"correct": correct, "predicted": predicted, "true": true}
        arrays["confusion"] = self.confusion[member]
        content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        output = self.context.store.output(stage)
        replace_bytes(output / evaluate.COUNTS_FILE, content)
        replace_text(output / evaluate.NAMES_FILE, json.dumps(self.names))
        replace_text(output / evaluate.SKIPPED_FILE, json.dumps(self._skipped, indent=1))
        return evaluate.Summary(
            miou=miou(counts), n_images=len(self.names), n_skipped=len(self._skipped)
        )

    def _require_images(self, stage: evaluate.Stage) -> None:
        if not self.names:
            raise DataError(
                f"data set {stage.places.display_name}: must have a readable image, but none "
                f"of {len(self._skipped)} is; the first reason: {self._skipped[0]['reason']}"
            )


def require_labels(counts: Counts, display_name: str) -> None:
    """Refuse a validation set without any labelled pixel.

    Raises:
        DataError: no pixel has a label.
    """
    if not counts.true.any():
        raise DataError(
            f"data set {display_name}: its masks must label a pixel, but all {counts.n_images} "
            f"hold only {IGNORED}, which is ignored; write class indices from 0 into them"
        )
