"""Train a linear probe on frozen features, which are read once and kept meanwhile.

Each training image, and its mirror image if an epoch draws it, is encoded once; its features, in
half precision, and labels are one file of unfinished work. A probe is resumed at the first file
that lacks, then at any step. Two runs on one CPU give the same bits.

Shape legend: C channels, h x w patch grid.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from spar_bench.datasets.base import IGNORED, Mask, Sample, evenly_spaced
from spar_bench.errors import DataError, Interrupted, SparBenchError
from spar_bench.files import replace_bytes, replace_text
from spar_bench.plan.cost import windows_flops
from spar_bench.resolve import open_dataset
from spar_bench.run.context import Context
from spar_bench.run.linear import Standard
from spar_bench.run.pixel_counts import Skipped, read_samples
from spar_bench.run.probe_training import Labelled, ProbeTraining, mirrored
from spar_bench.run.reader import Reader
from spar_bench.run.resume import RESUME_FILE, SAVE_EVERY_S, is_whole
from spar_bench.run.segment import DIVERGED, UNFIT
from spar_bench.run.writer import Writer
from spar_bench.stages import linear_probe
from spar_bench.stages.linear_probe import Stage, Summary, training_flops

_FEATURES = "features"
_READING = 0.7
"""Share of the work that reading is, for its progress."""


def make_linear_probes(stages: list[Stage], context: Context) -> list[Summary]:
    """Train probes; writes the weights for plain features, the loss curve, and what was skipped.

    Raises:
        Diverged: a loss is no longer finite.
        DataError: a training image cannot be read, or none has a label.
    """
    return [_make_linear_probe(stage, context) for stage in stages]


def _make_linear_probe(stage: Stage, context: Context) -> Summary:
    kept = _Kept(stage, context)
    kept.fill()
    standard, output = kept.standard(), context.store.output(stage)
    run = _train(stage, kept, standard, context)
    weights = run.weights.folded(standard)
    replace_bytes(output / linear_probe.PROBE_FILE, save(weights._asdict()))
    replace_text(output / linear_probe.CURVE_FILE, json.dumps(run.curve))
    skipped = [asdict(one) for one in kept.skipped.values()]
    replace_text(output / linear_probe.SKIPPED_FILE, json.dumps(skipped, indent=1))
    return Summary(
        n_images=len(run.images),
        n_skipped=len(skipped),
        n_steps=run.n_steps,
        final_loss=run.final_loss,
    )


def _train(stage: Stage, kept: "_Kept", standard: Standard, context: Context) -> ProbeTraining:
    """Take all steps; resumes where an earlier attempt stopped."""
    settings = stage.settings
    run = ProbeTraining(
        settings.recipe,
        kept.readable,
        n_classes=settings.n_classes,
        channels=len(standard.mean),
        device=context.device,
    )
    resume = context.store.scratch(stage) / RESUME_FILE
    run.resume(resume)
    saved_at = time.monotonic()
    while run.step < run.n_steps:
        try:
            context.check()
        except Interrupted:
            run.save(resume)
            raise
        context.report(stage, _READING + (1 - _READING) * run.step / run.n_steps)
        if time.monotonic() - saved_at > SAVE_EVERY_S:
            run.save(resume)
            saved_at = time.monotonic()
        drawn = kept.mirrored(run.epoch)
        batch = [kept.read(position, is_mirrored=drawn[position]) for position in run.upcoming()]
        run.take_step([Labelled(standard.apply(one.features), one.labels) for one in batch])
        context.flops += sum(
            training_flops(one.features.numel(), settings.n_classes) for one in batch
        )
    run.require_finite()
    return run


class _Kept:
    """The features and labels of training images, by their positions among those that are used.

    `skipped` has the images that cannot be read, by position.
    """

    def __init__(self, stage: Stage, context: Context) -> None:
        self._stage, self._context = stage, context
        self._folder = context.store.scratch(stage) / _FEATURES
        self._dataset = open_dataset(stage.places.dataset, "train", labelled=True)
        self._indices = evenly_spaced(range(len(self._dataset)), stage.settings.recipe.count)
        self.skipped = dict[int, Skipped]()
        states = np.array([self.mirrored(n) for n in range(stage.settings.recipe.epochs)])
        self._needed = [
            [is_mirrored for is_mirrored in (False, True) if (of_image == is_mirrored).any()]
            for of_image in states.T
        ]

    @property
    def readable(self) -> list[int]:
        """The positions of the images that can be read."""
        return [place for place in range(len(self._indices)) if place not in self.skipped]

    def mirrored(self, epoch: int) -> NDArray[np.bool_]:
        """Tell for each position whether an epoch mirrors its image."""
        recipe = self._stage.settings.recipe
        return mirrored(len(self._indices), recipe.flip, recipe.seed, epoch)

    def fill(self) -> None:
        """Write the files that an earlier attempt has not written.

        Raises:
            DataError: an image cannot be read, or none can.
            SparBenchError: features are not finite.
        """
        lacking = [place for place, states in enumerate(self._needed) if self._lacks(place, states)]
        indices = [self._indices[place] for place in lacking]
        samples = read_samples(self._dataset, indices, self._context.workers, lambda sample: sample)
        reader = self._reader() if lacking else None
        with Writer() as writer:
            for place, sample in zip(lacking, samples, strict=True):
                self._context.check()
                self._context.report(self._stage, _READING * place / len(self._indices))
                if isinstance(sample, DataError):
                    self._skip(place, sample)
                elif reader is not None:
                    self._write(place, sample, reader, writer)
        if not self.readable:
            raise DataError(
                f"data set {self._stage.places.display_name}: must have a training image that can "
                f"be read, but none of {len(self.skipped)} is; the first reason: "
                f"{self.skipped[0].reason}"
            )

    def standard(self) -> Standard:
        """Return the mean and deviation of each channel over all that is kept.

        Raises:
            DataError: no pixel has a label.
        """
        totals, n_patches, n_labelled = list[Tensor](), 0, 0
        for place, is_mirrored in self._all():
            with safe_open(self._path(place, is_mirrored), framework="pt") as file:
                totals.append(torch.stack([file.get_tensor("sum"), file.get_tensor("squares")]))
                _, height, width = file.get_slice("features").get_shape()
                n_patches += height * width
                n_labelled += int(file.get_tensor("n_labelled"))
        if n_labelled == 0:
            raise DataError(
                f"data set {self._stage.places.display_name}: the masks of its training images "
                f"must label a pixel, but hold only {IGNORED}, which is ignored; write class "
                "indices from 0 into them"
            )
        return Standard.of(n_patches, *torch.stack(totals).sum(dim=0))

    def read(self, place: int, *, is_mirrored: bool) -> Labelled:
        """Return the plain features and labels of an image, on the device."""
        device = self._context.device
        with safe_open(self._path(place, is_mirrored), framework="pt") as file:
            features, labels = file.get_tensor("features"), file.get_tensor("labels")
        return Labelled(features.to(device), labels.to(device))

    def _all(self) -> Iterator[tuple[int, bool]]:
        """Yield each image that can be read, as it is and mirrored, if it is needed so."""
        for place in self.readable:
            yield from ((place, is_mirrored) for is_mirrored in self._needed[place])

    def _lacks(self, place: int, states: list[bool]) -> bool:
        return not all(is_whole(self._path(place, is_mirrored)) for is_mirrored in states)

    def _path(self, place: int, is_mirrored: bool) -> Path:
        return self._folder / f"{place:06d}{'_mirrored' if is_mirrored else ''}.safetensors"

    def _reader(self) -> Reader:
        stage, context = self._stage, self._context
        student = context.finished(stage, "student") if "student" in stage.inputs else None
        return Reader(
            context.backbone(stage.places.backbone, student),
            precision=stage.settings.precision,
            interpolation=stage.settings.resize,
            device=context.device,
        )

    def _skip(self, place: int, error: DataError) -> None:
        if self._stage.settings.unreadable != "skip":
            raise error
        self.skipped[place] = Skipped(self._indices[place], str(error))

    def _write(self, place: int, sample: Sample, reader: Reader, writer: Writer) -> None:
        """Encode an image in the states that lack, and have the files written."""
        context, settings = self._context, self._stage.settings
        image_hw = settings.reading_size.of(sample.image.shape)
        for is_mirrored in self._needed[place]:
            path = self._path(place, is_mirrored)
            if is_whole(path):
                continue
            step = -1 if is_mirrored else 1
            with torch.inference_mode():
                image = reader.prepare(sample.image[:, ::step], image_hw)
                features = reader.features(image, [settings.inference])[0].to(torch.float16)
            if not features.isfinite().all():
                raise self._not_finite(sample.name)
            context.flops += windows_flops(reader.backbone.sizes, settings.inference, image_hw)
            context.window_batch = reader.batch.used
            writer.put(path, _tensors(features.cpu(), sample.mask[:, ::step]))

    def _not_finite(self, name: str) -> SparBenchError:
        settings, way_out = self._stage.settings, "use evaluate.precision: float32"
        if settings.precision == "float32":
            way_out = DIVERGED if "student" in self._stage.inputs else UNFIT
        return SparBenchError(
            "linear_probe: features must be finite in half precision, but those of "
            f"{name} are not, read in {settings.precision}; {way_out}"
        )


def _tensors(features: Tensor, mask: Mask) -> dict[str, Tensor]:
    """Return what a file holds: features `(C, h, w)`, labels, and what the mean is taken from."""
    labels = torch.from_numpy(np.ascontiguousarray(mask))
    values = features.double().flatten(1)
    return {
        "features": features.contiguous(),
        "labels": labels,
        "sum": values.sum(dim=1),
        "squares": values.square().sum(dim=1),
        "n_labelled": (labels != IGNORED).sum(),
    }
