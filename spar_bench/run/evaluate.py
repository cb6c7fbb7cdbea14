"""Open-vocabulary segmentation of a validation set: counts and previews, part by part."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from spar_bench.accuracy import miou
from spar_bench.datasets.base import Sample
from spar_bench.errors import DataError, LeaseLost, SparBenchError
from spar_bench.files import link, replace_bytes, replace_text
from spar_bench.plan.cost import shared_flops
from spar_bench.resolve import open_dataset
from spar_bench.run.classifier import Classifier
from spar_bench.run.context import Context
from spar_bench.run.linear import linear_classifier, read_weights
from spar_bench.run.parts import Line, Part, Parts
from spar_bench.run.pixel_counts import PixelCounts, ReadImage, Skipped, labelled, prepared
from spar_bench.run.resume import (
    RESUME_FILE,
    SAVE_EVERY_S,
    is_whole,
    load_state,
    save_state,
)
from spar_bench.run.segment import DIVERGED, UNFIT, Segmenter
from spar_bench.run.text import classifier_of, read_queries
from spar_bench.stages import evaluate
from spar_bench.stages.evaluate import preview_file


def make_evaluations(
    stages: list[evaluate.Stage], context: Context
) -> list[evaluate.Summary | Exception]:
    """Evaluate all stages of one `batch_key`; writes counts and previews.

    A stage whose own features or labels fail leaves the others alone; an image that cannot be read
    concerns all of them. Other processes may help.
    """
    segmenter, failed = _segmenter(stages[0], context), dict[str, Exception]()
    while left := [stage for stage in stages if stage.fingerprint not in failed]:
        evaluation = _Evaluation(left, segmenter, context)
        with closing(Parts(left, evaluation.n_images, context)) as parts:
            try:
                while not parts.are_done():
                    if not evaluation.count(parts):
                        parts.wait()
                evaluation.gather(parts)
                made = {one.fingerprint: evaluation.result(i) for i, one in enumerate(left)}
                return [(failed | made)[stage.fingerprint] for stage in stages]
            except _Failed as found:
                parts.discard()
                failed |= {left[place].fingerprint: why for place, why in found.errors.items()}
    return [failed[stage.fingerprint] for stage in stages]


def help_evaluations(stages: list[evaluate.Stage], context: Context) -> None:
    """Count parts of what another process evaluates, until none is free."""
    evaluation = _Evaluation(stages, _segmenter(stages[0], context), context)
    with closing(Parts(stages, evaluation.n_images, context, helps=True)) as parts:
        evaluation.count(parts)


class _Failed(Exception):
    """Some stages cannot go on, by their place."""

    def __init__(self, errors: Mapping[int, Exception]) -> None:
        super().__init__(*errors.values())
        self.errors = errors


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


class _Evaluation:
    """Stages that are evaluated together, part by part of the images."""

    def __init__(
        self, stages: list[evaluate.Stage], segmenter: Segmenter, context: Context
    ) -> None:
        first = stages[0]
        self._stages, self._segmenter, self._context = stages, segmenter, context
        self._inferences = [stage.settings.inference for stage in stages]
        self._resize, self._pictured = first.settings.resize, first.settings.pictured
        self._skips = first.settings.protocol.unreadable == "skip"
        self._dataset = open_dataset(first.places.dataset, "val")
        self.n_images = len(self._dataset)
        self._counted = dict[int, _CountedPart]()
        self._whole = self._counts(range(0))  # until all parts are gathered

    def count(self, parts: Parts) -> bool:
        """Count the images of all parts that are free; return False if none was.

        Raises:
            _Failed: some of the stages cannot go on.
            DataError: an image or mask cannot be read.
        """
        line, context = Line(parts, self._lacking), self._context
        if line.is_empty:
            return False
        counted, saved_at = None, time.monotonic()
        try:
            context.check()
            for one in self._prepared(line):
                part, _, is_last = line.next()
                counted = self._counted[part.index]
                self._add(one, counted)
                context.report(self._stages[0], parts.share(counted.counts.n_done))
                if is_last or time.monotonic() - saved_at > SAVE_EVERY_S:
                    counted.save()
                    saved_at = time.monotonic()
                if is_last:
                    counted = None
                    del self._counted[part.index]
                    parts.finish(part)
                context.check()
        except Exception as error:  # interrupted, or failed: the next attempt resumes here
            if counted is not None and not isinstance(error, (_Failed, LeaseLost)):
                counted.save()
            raise
        return True

    def gather(self, parts: Parts) -> None:
        """Sum the counts of all parts, and put what is kept of images into the stages' outputs.

        Raises:
            SparBenchError: the counts of a part were altered.
        """
        whole, kept = self._counts(range(self.n_images)), set[int]()
        self._whole = whole
        for folder, images in parts.gathered():
            counted, n_before = _CountedPart(folder, self._counts(images)), len(whole.names)
            if counted.counts.n_done != len(images):
                parts.discard()
                raise SparBenchError(
                    f"{folder}: must hold the counts of {len(images)} images, but was altered, and "
                    "is deleted; run the same command again"
                )
            if not whole.skipped:  # else its images have other places than its maker thought
                kept |= self._take_kept(counted)
            n_read = len(counted.counts.names)
            whole.confusion += counted.counts.confusion
            whole.pixels[:, :, n_before : n_before + n_read] = counted.counts.pixels[:, :, :n_read]
            whole.names += counted.counts.names
            whole.skipped += counted.counts.skipped
        skipped = {one.index for one in whole.skipped}
        readable = [index for index in range(self.n_images) if index not in skipped]
        again = [p for p in self._pictured if p not in kept and p < len(readable)]
        for place, one in zip(again, self._prepared(readable[p] for p in again), strict=True):
            if isinstance(one, DataError):
                raise one
            self._keep(labelled(self._segmenter, *one, whole), place, self._output)

    def result(self, place: int) -> evaluate.Summary | Exception:
        """Write a stage's counts as its output and return its summary, or why it failed."""
        stage, whole = self._stages[place], self._whole
        try:
            counts = whole.of(place, stage.places.display_name)
        except SparBenchError as error:
            return error
        arrays = {"correct": counts.correct, "predicted": counts.predicted, "true": counts.true}
        arrays["confusion"] = whole.confusion[place]
        skipped = [asdict(one) for one in whole.skipped]
        output = self._context.store.output(stage)
        replace_bytes(output / evaluate.COUNTS_FILE, _saved(arrays))
        replace_text(output / evaluate.NAMES_FILE, json.dumps(whole.names))
        replace_text(output / evaluate.SKIPPED_FILE, json.dumps(skipped, indent=1))
        return evaluate.Summary(miou=miou(counts), n_images=counts.n_images, n_skipped=len(skipped))

    def _counts(self, images: range) -> PixelCounts:
        n_classes = len(self._stages[0].settings.classes)
        return PixelCounts(self._inferences, len(images), n_classes, first=images.start)

    def _lacking(self, part: Part) -> range:
        """Return the positions of a part that are not counted yet."""
        counted = _CountedPart(part.folder, self._counts(part.images))
        self._counted[part.index] = counted
        return part.images[counted.counts.n_done :]

    def _prepared(self, indices: Iterable[int]) -> Iterator[tuple[Sample, Tensor] | DataError]:
        return prepared(
            self._segmenter, self._dataset, self._resize, indices, self._context.workers
        )

    def _add(self, one: tuple[Sample, Tensor] | DataError, counted: "_CountedPart") -> None:
        """Count an image, or leave it out; what is counted has been kept first."""
        counts = counted.counts
        if isinstance(one, DataError):
            if not self._skips:
                raise one
            counts.add(one)
            return
        image = labelled(self._segmenter, *one, counts)
        errors = {i: one for i, one in image.labels.items() if isinstance(one, SparBenchError)}
        if errors:
            raise _Failed(errors)
        self._keep(image, counts.first + len(counts.names), counted.kept)
        counts.add(image)

    def _keep(self, image: ReadImage, place: int, path: Callable[[int, str], Path]) -> None:
        """Write what is kept of the image at a place among those that can be read; count the work.

        `path` takes the place of a stage and a file name. Features are kept of the first image.
        """
        sample, features = image.sample, list[Tensor]()
        inferences = self._inferences
        image_hw = self._resize.of(sample.image.shape)
        if place == self._pictured[0]:
            features = self._segmenter.features(sample.image, image_hw, inferences)
        n_reads = 2 if features else 1
        sizes = self._segmenter.backbone.sizes
        self._context.flops += n_reads * shared_flops(sizes, inferences, image_hw)
        truth_hw = sample.mask.shape[0], sample.mask.shape[1]
        self._context.flops += len(inferences) * self._stages[0].refining_flops(truth_hw)
        self._context.window_batch = self._segmenter.batch.used
        if place not in self._pictured:
            return
        for i, labels in image.labels.items():
            assert not isinstance(labels, SparBenchError), "what has failed is not kept"
            arrays = {"image": sample.image, "truth": sample.mask, "prediction": labels}
            if features:
                arrays["features"] = features[i].to(torch.float16).cpu().numpy()
            replace_bytes(path(i, preview_file(self._pictured.index(place))), _saved(arrays))

    def _take_kept(self, counted: "_CountedPart") -> set[int]:
        """Put what a part's maker has kept into the outputs; return the places of its images."""
        found = set[int]()
        for index, place in enumerate(self._pictured):
            for i in range(len(self._stages)):
                name = preview_file(index)
                if is_whole(counted.kept(i, name)):
                    link(counted.kept(i, name), self._output(i, name))
                    found.add(place)
        return found

    def _output(self, place: int, name: str) -> Path:
        return self._context.store.output(self._stages[place]) / name


class _CountedPart:
    """The counts of a part so far, and where they are saved; resumes those of earlier owners."""

    def __init__(self, folder: Path, counts: PixelCounts) -> None:
        self.counts, self._folder = counts, folder
        resumed = load_state(folder / RESUME_FILE)
        if resumed is not None:
            tensors, state = resumed
            counts.confusion = tensors["confusion"].numpy()
            counts.pixels = tensors["counts"].numpy()
            counts.names = state["names"]
            counts.skipped = [Skipped(**one) for one in state["skipped"]]

    def kept(self, place: int, name: str) -> Path:
        """Return the file of what is kept of an image for a stage, by its place."""
        return self._folder / f"{place}-{name}"

    def save(self) -> None:
        """Save the counts so far."""
        counts = self.counts
        state = {"names": counts.names, "skipped": [asdict(one) for one in counts.skipped]}
        tensors = {
            "confusion": torch.from_numpy(counts.confusion),
            "counts": torch.from_numpy(counts.pixels),
        }
        save_state(self._folder / RESUME_FILE, tensors, state)


def _saved(arrays: dict[str, np.ndarray]) -> bytes:
    content: bytes = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return content
