"""The first two stages: the list of distillation images, and the teacher's features on them."""

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from spar_bench.backbones.base import Backbone
from spar_bench.drawing import draw
from spar_bench.errors import SparBenchError
from spar_bench.files import link, replace_text
from spar_bench.plan.cost import windows_flops
from spar_bench.resolve import open_dataset
from spar_bench.run.context import Context, moved
from spar_bench.run.images import CACHE_BYTES, Pictures, normalise
from spar_bench.run.inference import WindowBatch, sliding_window, usual_batch
from spar_bench.run.parts import Line, Part, Parts
from spar_bench.run.resume import is_whole
from spar_bench.run.writer import Writer
from spar_bench.stage import Damaged, Finished
from spar_bench.stages import images, student, targets
from spar_bench.stages.targets import file_of
from spar_bench.windows import n_windows


def make_images(stages: list[images.Stage], context: Context) -> list[images.Summary]:
    """Draw the lists of distillation images."""
    return [_make_images(stage, context) for stage in stages]


def _make_images(stage: images.Stage, context: Context) -> images.Summary:
    source = open_dataset(stage.places.source, "train")
    drawn = draw(stage.settings.drawing, len(source))
    text = json.dumps([one.to_json() for one in drawn])
    replace_text(context.store.output(stage) / images.LIST_FILE, text)
    return images.Summary(n_images=len(drawn))


def open_images(stage: targets.Stage | student.Stage, context: Context) -> Pictures:
    """Return the distillation images of a stage's input `images`."""
    listed = context.finished(stage, "images")
    settings = images.Settings.model_validate(listed.manifest["settings"])
    return context.pictures(
        listed.fingerprint,
        lambda: Pictures(
            open_dataset(stage.places.images.source, "train"),
            images.read_list(listed),
            settings.drawing,
            cache_bytes=0 if _is_read_once(stage) else CACHE_BYTES,
        ),
    )


def _is_read_once(stage: targets.Stage | student.Stage) -> bool:
    return isinstance(stage, student.Stage) and stage.settings.n_lists > 1


def make_targets(stages: list[targets.Stage], context: Context) -> list[targets.Summary]:
    """Write the teacher's features on each image, `(C, h, w)` in half precision.

    An interrupted attempt resumes after the last file it wrote; other processes may help.
    """
    return [_make_targets(stage, context) for stage in stages]


def help_targets(stages: list[targets.Stage], context: Context) -> None:
    """Write parts of what another process makes, until none is free."""
    for stage in stages:
        teaching = _Teaching(stage, context)
        with closing(teaching.parts(helps=True)) as parts:
            teaching.write(parts)


def _make_targets(stage: targets.Stage, context: Context) -> targets.Summary:
    teaching = _Teaching(stage, context)
    with closing(teaching.parts()) as parts:
        while not parts.are_done():
            if not teaching.write(parts):
                parts.wait()
        return teaching.gathered(parts)


class _Teaching:
    """What writes the targets of a stage, image by image."""

    def __init__(self, stage: targets.Stage, context: Context) -> None:
        self._stage, self._context = stage, context
        self._pictures = open_images(stage, context)
        self._teacher = Teacher(context.backbone(stage.places.backbone), stage.settings, context)
        self._output: Path | None = None

    def parts(self, *, helps: bool = False) -> Parts:
        """Return the parts of the images; the owner may have files left from a damaged stage."""
        if not helps:
            self._output = self._context.store.output(self._stage)
        return Parts([self._stage], len(self._pictures), self._context, helps=helps)

    def write(self, parts: Parts) -> bool:
        """Write the files of all parts that are free; return False if none was."""
        line, context = Line(parts, self._lacking), self._context
        if line.is_empty:
            return False
        with closing(self._pictures.stream(line, context.workers)) as stream, Writer() as writer:
            for picture in stream:
                part, position, is_last = line.next()
                context.check()
                context.report(self._stage, parts.share(position - part.images.start))
                features = self._teacher.features(picture, position).cpu()
                writer.put(part.folder / file_of(position), {"features": features})
                if is_last:
                    writer.flush()
                    parts.finish(part)
        return True

    def gathered(self, parts: Parts) -> targets.Summary:
        """Put the files of all parts into the stage's output."""
        output, teacher = self._context.store.output(self._stage), self._stage.settings.teacher
        sizes, n_passes, flops = self._teacher.backbone.sizes, 0, 0
        patch_px = sizes.patch_px
        for folder, positions in parts.gathered():
            for name in map(file_of, positions):
                if not is_whole(output / name):
                    link(folder / name, output / name)
                rows, columns = _grid_hw(output / name)
                image_hw = rows * patch_px, columns * patch_px
                n_passes += n_windows(image_hw, *teacher.window_and_stride_px)
                flops += windows_flops(sizes, teacher, image_hw)
        return targets.Summary(n_images=len(self._pictures), n_windows=n_passes, gflops=flops / 1e9)

    def _lacking(self, part: Part) -> Iterator[int]:
        """Yield the positions whose files are still to be written, once those left are linked."""
        for position in part.images:
            name = file_of(position)
            if not is_whole(part.folder / name):
                if self._output is not None and is_whole(self._output / name):
                    link(self._output / name, part.folder / name)
                else:
                    yield position


class Teacher:
    """The frozen backbone, read through a sliding window."""

    def __init__(self, backbone: Backbone, settings: targets.Settings, context: Context) -> None:
        self.backbone = backbone
        self._settings, self._context = settings, context
        self._batch = WindowBatch(context.device, usual_batch(context.device, backbone.sizes))

    def features(self, picture: Tensor, position: int) -> Tensor:
        """Return the features of one image, `(C, h, w)` in half precision, on the device.

        Raises:
            SparBenchError: one is too large for half precision.
        """
        backbone, context, inference = self.backbone, self._context, self._settings.teacher
        window_px, stride_px = inference.window_and_stride_px
        features = sliding_window(
            backbone,
            moved(normalise(picture, backbone.mean, backbone.std), context.device)[None],
            window_px=window_px,
            stride_px=stride_px,
            upsample=inference.upsample,
            batch=self._batch,
            precision=self._settings.precision,
        )[0]
        if self._settings.normalise:
            features = F.normalize(features, dim=0)
        features = features.to(torch.float16)
        if not features.isfinite().all():
            is_exact = self._settings.precision == "float32"
            way_out = (
                "check the backbone's weights" if is_exact else "use teacher.precision: float32"
            )
            raise SparBenchError(
                f"targets: the teacher's features must be finite in half precision, but those of "
                f"image {position} are not; {way_out}"
            )
        context.flops += self.flops((picture.shape[-2], picture.shape[-1]))
        context.window_batch = self._batch.used
        return features.contiguous()

    def flops(self, image_hw: tuple[int, int]) -> int:
        """Return the FLOPs of reading an image."""
        return windows_flops(self.backbone.sizes, self._settings.teacher, image_hw)


class Targets:
    """The teacher's features on a student's images: read if they are kept, else computed.

    Computed ones are rounded to half precision, like kept ones: a student is the same either way.
    """

    def __init__(self, stage: student.Stage, context: Context) -> None:
        """Look for them in the store; if they need not be kept, they may be damaged or missing."""
        self._stage, self._context = stage, context
        self._kept: Finished | None = None
        if stage.places.keeps_targets:
            self._kept = context.finished(stage, "targets")
        else:
            with suppress(Damaged):
                self._kept = context.store.find_by_fingerprint(stage.inputs["targets"])

    def read(self, position: int, picture: Tensor) -> tuple[Tensor, int]:
        """Return the features on an image, `(C, h, w)` in float32 on the device.

        With them, the FLOPs that they took: 0 if they are kept.

        Raises:
            Damaged: they are kept, but their file was altered.
        """
        if self._kept is not None:
            try:
                return moved(read_target(self._kept, position), self._context.device), 0
            except Damaged:
                if self._stage.places.keeps_targets:
                    raise
        features = self._teacher.features(picture, position).float()
        return features, self._teacher.flops((picture.shape[-2], picture.shape[-1]))

    @cached_property
    def _teacher(self) -> Teacher:
        """The teacher, built once: the context looks at its weights' files each time."""
        places = self._stage.places
        return Teacher(self._context.backbone(places.backbone), places.teaching, self._context)


def read_target(targets: Finished, position: int) -> Tensor:
    """Return the teacher's features on one image, `(C, h, w)` in float32; the file is mapped."""
    with safe_open(targets.path(file_of(position)), framework="pt") as file:
        features: Tensor = file.get_tensor("features")
        return features.float()


def _grid_hw(path: Path) -> tuple[int, int]:
    """Return the grid of the features in a file."""
    with safe_open(path, framework="pt") as file:
        _, rows, columns = file.get_slice("features").get_shape()
        return rows, columns
