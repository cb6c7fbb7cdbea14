"""Open-vocabulary segmentation of a validation set: counts and previews, resumed if stopped."""

import json
import time
from dataclasses import asdict

import numpy as np
import torch
from safetensors.numpy import save

from spar_bench.accuracy import miou
from spar_bench.errors import SparBenchError
from spar_bench.files import replace_bytes, replace_text
from spar_bench.plan.cost import shared_flops
from spar_bench.resolve import open_dataset
from spar_bench.run.classifier import Classifier
from spar_bench.run.context import Context
from spar_bench.run.linear import linear_classifier, read_weights
from spar_bench.run.pixel_counts import PixelCounts, ReadImage, Skipped, read_images
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
from spar_bench.stages.evaluate import preview_file


def make_evaluations(
    stages: list[evaluate.Stage], context: Context
) -> list[evaluate.Summary | Exception]:
    """Evaluate all stages of one `batch_key`; writes counts and previews.

    A stage whose own features or labels fail leaves the others alone; an image that cannot be read
    concerns all of them.
    """
    first, segmenter = stages[0], _segmenter(stages[0], context)
    dataset = open_dataset(first.places.dataset, "val")
    batch = _Batch(stages, len(dataset), segmenter, context)
    images = read_images(
        segmenter,
        dataset,
        first.settings.resize,
        batch.counts,
        skips=first.settings.protocol.unreadable == "skip",
        n_threads=context.workers,
    )
    saved_at = time.monotonic()
    try:
        context.check()
        for image in images:
            if isinstance(image, ReadImage):
                batch.keep_previews(image)
            batch.counts.add(image)
            context.report(first, batch.counts.n_done / len(dataset))
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                batch.save()
                saved_at = time.monotonic()
            context.check()
    except Exception:  # interrupted, or failed: the next attempt resumes here
        batch.save()
        raise
    return [batch.result(place) for place in range(len(stages))]


def _segmenter(stage: evaluate.Stage, context: Context) -> Segmenter:
    protocol = stage.settings.protocol
    student = context.finished(stage, "student") if "student" in stage.inputs else None
    return Segmenter(
        context.backbone(stage.places.backbone, student),
        _classifier(stage, context),
        refiner=stage.places.refiner,
        built=context.refiner(stage.places.refiner),
        precision=protocol.precision,
        interpolation=protocol.resize,
        way_out=UNFIT if student is None else DIVERGED,
        device=context.device,
    )


def _classifier(stage: evaluate.Stage, context: Context) -> Classifier:
    settings = stage.settings
    if "linear_probe" in stage.inputs:
        weights = read_weights(context.finished(stage, "linear_probe"))
        return linear_classifier(weights, settings.protocol, context.device)
    queries = read_queries(context.finished(stage, "text")).to(context.device)
    return classifier_of(queries, settings.classes, settings.protocol)


class _Batch:
    """The pixel counts of stages that are made together; resumes an interrupted attempt."""

    def __init__(
        self, stages: list[evaluate.Stage], n_images: int, segmenter: Segmenter, context: Context
    ) -> None:
        settings = stages[0].settings
        inferences = [stage.settings.inference for stage in stages]
        self.counts = PixelCounts(inferences, n_images, len(settings.classes))
        self._stages, self._segmenter, self._context = stages, segmenter, context
        self._resize, self._pictured = settings.resize, settings.pictured
        self._digest = digest([stage.fingerprint for stage in stages])
        self._path = context.store.scratch(stages[0]) / RESUME_FILE
        self._resume()

    def keep_previews(self, image: ReadImage) -> None:
        """Write what is kept of an image, of the first kept one features too; count the work.

        Called before the image is counted, so that what is counted has its previews.
        """
        sample, index = image.sample, len(self.counts.names)
        inferences = [self.counts.inferences[place] for place in image.labels]
        image_hw = self._resize.of(sample.image.shape)
        features = (
            self._segmenter.features(sample.image, image_hw, inferences)
            if index == self._pictured[0]
            else []
        )
        n_reads = 2 if features else 1
        sizes = self._segmenter.backbone.sizes
        self._context.flops += n_reads * shared_flops(sizes, inferences, image_hw)
        truth_hw = sample.mask.shape[0], sample.mask.shape[1]
        self._context.flops += len(inferences) * self._stages[0].refining_flops(truth_hw)
        self._context.window_batch = self._segmenter.batch.used
        for position, (place, labels) in enumerate(image.labels.items()):
            if index in self._pictured and not isinstance(labels, SparBenchError):
                arrays = {"image": sample.image, "truth": sample.mask, "prediction": labels}
                if features:
                    arrays["features"] = features[position].to(torch.float16).cpu().numpy()
                output = self._context.store.output(self._stages[place])
                name = preview_file(self._pictured.index(index))
                replace_bytes(output / name, _saved(arrays))

    def save(self) -> None:
        """Save the counts so far; not those of a batch with a failure, which changes next time."""
        counts = self.counts
        if counts.failures:
            return
        skipped = [asdict(one) for one in counts.skipped]
        state = {"batch": self._digest, "names": counts.names, "skipped": skipped}
        tensors = {
            "confusion": torch.from_numpy(counts.confusion),
            "counts": torch.from_numpy(counts.pixels),
        }
        save_state(self._path, tensors, state)

    def _resume(self) -> None:
        resumed = load_state(self._path)
        if resumed is None:
            return
        tensors, state = resumed
        if state["batch"] == self._digest and self._has_previews(len(state["names"])):
            self.counts.confusion = tensors["confusion"].numpy()
            self.counts.pixels = tensors["counts"].numpy()
            self.counts.names = state["names"]
            self.counts.skipped = [Skipped(**one) for one in state["skipped"]]

    def _has_previews(self, n_read: int) -> bool:
        """Return whether the files that belong to a resume state still exist, for every stage."""
        outputs = [self._context.store.output(stage) for stage in self._stages]
        n_kept = sum(place < n_read for place in self._pictured)
        names = [preview_file(index) for index in range(n_kept)]
        return all(is_whole(output / name) for output in outputs for name in names)

    def result(self, place: int) -> evaluate.Summary | Exception:
        """Write a stage's counts as its output and return its summary, or why it failed."""
        stage = self._stages[place]
        try:
            counts = self.counts.of(place, stage.places.display_name)
        except SparBenchError as error:
            return error
        arrays = {"correct": counts.correct, "predicted": counts.predicted, "true": counts.true}
        arrays["confusion"] = self.counts.confusion[place]
        skipped = [asdict(one) for one in self.counts.skipped]
        output = self._context.store.output(stage)
        replace_bytes(output / evaluate.COUNTS_FILE, _saved(arrays))
        replace_text(output / evaluate.NAMES_FILE, json.dumps(self.counts.names))
        replace_text(output / evaluate.SKIPPED_FILE, json.dumps(skipped, indent=1))
        return evaluate.Summary(miou=miou(counts), n_images=counts.n_images, n_skipped=len(skipped))


def _saved(arrays: dict[str, np.ndarray]) -> bytes:
    content: bytes = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return content
