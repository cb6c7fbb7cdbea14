"""Open-vocabulary segmentation of a validation set: pixel counts, for several arms at once.

Shape legend: N images, K classes, C channels, h x w patch grid.
"""

import json
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save
from torch import Tensor

from spar_bench.accuracy import Counts, miou, names_digest
from spar_bench.backbones import Sizes
from spar_bench.datasets import label
from spar_bench.datasets.base import IGNORED, Dataset, Mask, Sample
from spar_bench.errors import DataError
from spar_bench.files import replace_bytes, replace_text
from spar_bench.plan.cost import Inference, encoder_flops, pass_hw, slid_hw
from spar_bench.plan.estimate import N_PREVIEWS
from spar_bench.plan.inputs import open_dataset
from spar_bench.plan.protocol import Resize
from spar_bench.results import Preview
from spar_bench.run.checkpoint import (
    CHECKPOINT_FILE,
    CHECKPOINT_S,
    is_whole,
    load_checkpoint,
    save_checkpoint,
)
from spar_bench.run.context import Context, Interrupted
from spar_bench.run.outputs import COUNTS_FILE, IMAGES_FILE, SKIPPED_FILE
from spar_bench.run.segment import DIVERGED, UNFIT, Segmenter
from spar_bench.run.text import classifier_of, read_queries
from spar_bench.spec.schema import DatasetSpec
from spar_bench.stage import Finished, Stage, digest
from spar_bench.windows import n_encoded


def make_evaluations(stages: list[Stage], context: Context) -> list[dict[str, Any]]:
    """Evaluate all arms of one `batch_key`; writes counts and previews, returns summaries."""
    first = stages[0]
    dataset = open_dataset(first.how["dataset"], "val")
    segmenter = _segmenter(first, context)
    arms = [Inference(**stage.settings["inference"]) for stage in stages]
    resize = Resize.of_stage(first)
    tally = _Tally(stages, len(dataset), context)
    saved_at = time.monotonic()
    while tally.n_done < len(dataset):
        try:
            context.check()
        except Interrupted:
            tally.save()
            raise
        context.report(first, tally.n_done / len(dataset))
        sample = _sample(dataset, tally, skips=first.settings["protocol"]["unreadable"] == "skip")
        if sample is not None:
            _read_one(tally, segmenter, sample, arms, resize)
        if time.monotonic() - saved_at > CHECKPOINT_S:
            tally.save()
            saved_at = time.monotonic()
    return [tally.write(arm, stage) for arm, stage in enumerate(stages)]


def _segmenter(stage: Stage, context: Context) -> Segmenter:
    settings, protocol = stage.settings, stage.settings["protocol"]
    is_student = "student" in stage.inputs
    student = context.finished(stage, "student", "student") if is_student else None
    queries = read_queries(context.finished(stage, "text", "text")).to(context.device)
    return Segmenter(
        context.backbone(stage.how["backbone"], student),
        classifier_of(queries, settings["classes"], protocol),
        refiner=settings["refiner"][0],
        precision=protocol["precision"],
        interpolation=protocol["resize"],
        way_out=DIVERGED if is_student else UNFIT,
        device=context.device,
    )


def _sample(dataset: Dataset, tally: "_Tally", *, skips: bool) -> Sample | None:
    """Return the next image; None, with a note, if it cannot be read and may be left out."""
    try:
        return dataset.sample(tally.n_done)
    except DataError as error:
        if not skips:
            raise
        tally.skipped.append({"index": tally.n_done, "reason": str(error)})
        return None


def _read_one(
    tally: "_Tally",
    segmenter: Segmenter,
    sample: Sample,
    arms: list[Inference],
    resize: Resize,
) -> None:
    """Read one image with every arm and count its pixels."""
    (height, width), image_hw = sample.mask.shape, resize.of(sample.image.shape)
    read = segmenter.read(sample.image, image_hw, (height, width), arms)
    features = [] if tally.names else segmenter.features(sample.image, image_hw, arms)
    for arm, labels in enumerate(read):
        tally.count(arm, sample, labels)
        if len(tally.names) < N_PREVIEWS:
            tally.preview(arm, sample, labels, features[arm] if features else None)
    tally.names.append(sample.name)
    n_reads = 2 if features else 1
    tally.context.flops += n_reads * _shared_flops(segmenter.backbone.sizes, arms, image_hw)


def _shared_flops(sizes: Sizes, arms: list[Inference], image_hw: tuple[int, int]) -> int:
    """Return the FLOPs of encoding one image for all arms: a shared window counts once."""
    window_px = arms[0].window_px
    if window_px is None:
        return encoder_flops(sizes, image_hw)
    strides = [arm.stride_px for arm in arms if arm.stride_px is not None]
    n_passes = n_encoded(slid_hw(sizes, arms[0], image_hw), window_px, strides)
    return n_passes * encoder_flops(sizes, pass_hw(sizes, arms[0], image_hw))


def confusion_of(truth: Mask, labels: Mask, n_classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix `(K, K)` of one image; rows are truth, columns predictions."""
    seen = truth != IGNORED
    pairs = truth[seen].astype(np.int64) * n_classes + labels[seen]
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def counts_of(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return an image's correct, predicted and true pixels of each class, `(3, K)`."""
    return np.stack([confusion.diagonal(), confusion.sum(0), confusion.sum(1)])


class _Tally:
    """Counts of several arms, image by image; resumes an interrupted attempt."""

    def __init__(self, stages: list[Stage], n_images: int, context: Context) -> None:
        self.context, self._stages = context, stages
        n_classes = len(stages[0].settings["classes"])
        self.confusion = np.zeros((len(stages), n_classes, n_classes), np.int64)
        self.counts = np.zeros((len(stages), 3, n_images, n_classes), np.int64)
        self.names: list[str] = []
        self.skipped: list[dict[str, Any]] = []
        self._arms = digest([stage.fingerprint for stage in stages])
        self._path = context.store.scratch(stages[0]) / CHECKPOINT_FILE
        self._resume()

    @property
    def n_done(self) -> int:
        """The number of processed images, including those left out."""
        return len(self.names) + len(self.skipped)

    def count(self, arm: int, sample: Sample, labels: Mask) -> None:
        """Add one image's pixels to an arm."""
        n_classes = self.confusion.shape[1]
        confusion = confusion_of(sample.mask, labels, n_classes)
        self.confusion[arm] += confusion
        self.counts[arm, :, len(self.names)] = counts_of(confusion)

    def preview(self, arm: int, sample: Sample, labels: Mask, features: Tensor | None) -> None:
        """Write an arm's prediction of one image."""
        arrays = {"image": sample.image, "truth": sample.mask, "prediction": labels}
        if features is not None:
            arrays["features"] = features.to(torch.float16).cpu().numpy()
        output = self.context.store.output(self._stages[arm])
        content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        replace_bytes(output / preview_name(len(self.names)), content)

    def save(self) -> None:
        """Save the counts so far."""
        words = {"arms": self._arms, "names": self.names, "skipped": self.skipped}
        tensors = {
            "confusion": torch.from_numpy(self.confusion),
            "counts": torch.from_numpy(self.counts),
        }
        save_checkpoint(self._path, tensors, words)

    def _resume(self) -> None:
        checkpoint = load_checkpoint(self._path)
        if checkpoint is None:
            return
        tensors, words = checkpoint
        if words["arms"] == self._arms and self._has_previews(len(words["names"])):
            self.confusion = tensors["confusion"].numpy()
            self.counts = tensors["counts"].numpy()
            self.names, self.skipped = words["names"], words["skipped"]

    def _has_previews(self, n_read: int) -> bool:
        """Tell whether the files that belong to a checkpoint still exist, in every scratch."""
        outputs = [self.context.store.output(stage) for stage in self._stages]
        names = [preview_name(index) for index in range(min(n_read, N_PREVIEWS))]
        return all(is_whole(output / name) for output in outputs for name in names)

    def write(self, arm: int, stage: Stage) -> dict[str, Any]:
        """Write an arm's counts as the stage's output and return its summary."""
        output = self.context.store.output(stage)
        correct, predicted, true = self.counts[arm, :, : len(self.names)]
        counts = Counts(correct, predicted, true, names_digest(self.names))
        arrays = {"correct": correct, "predicted": predicted, "true": true}
        arrays["confusion"] = self.confusion[arm]
        content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        replace_bytes(output / COUNTS_FILE, content)
        replace_text(output / IMAGES_FILE, json.dumps(self.names))
        replace_text(output / SKIPPED_FILE, json.dumps(self.skipped, indent=1))
        self._require_images(stage)
        require_labels(counts, stage.how["dataset"])
        return {
            "miou": miou(counts),
            "n_images": len(self.names),
            "n_skipped": len(self.skipped),
        }

    def _require_images(self, stage: Stage) -> None:
        if not self.names:
            raise DataError(
                f"data set {label(stage.how['dataset'])}: must have a readable image, but none "
                f"of {len(self.skipped)} is; the first reason: {self.skipped[0]['reason']}"
            )


def require_labels(counts: Counts, dataset: DatasetSpec) -> None:
    """Refuse a validation set without any labelled pixel.

    Raises:
        DataError: no pixel has a label.
    """
    if not counts.true.any():
        raise DataError(
            f"data set {label(dataset)}: its masks must label a pixel, but all {counts.n_images} "
            f"hold only {IGNORED}, which is ignored; write class indices from 0 into them"
        )


def read_counts(finished: Finished) -> Counts:
    """Return the per-image pixel counts of a finished evaluation."""
    arrays = load_file(finished.path(COUNTS_FILE))
    names = json.loads(finished.path(IMAGES_FILE).read_text(encoding="utf-8"))
    return Counts(arrays["correct"], arrays["predicted"], arrays["true"], names_digest(names))


def read_preview(finished: Finished) -> Preview:
    """Return the previews of a finished evaluation."""
    names = json.loads(finished.path(IMAGES_FILE).read_text(encoding="utf-8"))[:N_PREVIEWS]
    arrays = [load_file(finished.path(preview_name(index))) for index in range(len(names))]
    return Preview(
        names,
        [one["image"] for one in arrays],
        [one["truth"] for one in arrays],
        [one["prediction"] for one in arrays],
    )


def read_features(finished: Finished) -> NDArray[np.float16]:
    """Return the features `(C, h, w)` of the first image, even if windows average logits."""
    features: NDArray[np.float16] = load_file(finished.path(preview_name(0)))["features"]
    return features


def preview_name(index: int) -> str:
    """Return the file name of one image's preview."""
    return f"preview_{index}.safetensors"
