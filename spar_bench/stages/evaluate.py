"""The pixel counts of one method on one data set at one resolution, image by image."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import load_file

from spar_bench.accuracy import Counts, names_digest
from spar_bench.components.identity import ComponentIdentity
from spar_bench.components.sizes import Sizes
from spar_bench.inference import Inference, Resize
from spar_bench.plan.cost import (
    image_flops,
    refining_flops,
    shared_flops,
    windows_flops,
    windows_of,
)
from spar_bench.protocol import Protocol
from spar_bench.resolve import ResolvedDataset, ResolvedPoint, Resolver
from spar_bench.results import Preview
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec, DatasetSpec
from spar_bench.stage import Finished, digest
from spar_bench.stages import base
from spar_bench.stages.base import Estimate, Identity
from spar_bench.stages.cost import method_of, reading
from spar_bench.values import Method, Precision

VERSION = 5
COUNTS_FILE = "counts.safetensors"
NAMES_FILE = "images.json"
"""The names of the images, in order."""
SKIPPED_FILE = "skipped.json"
"""Index and reason for each image that could not be read."""
N_PREVIEWS = 4
"""First images that are kept with labels, unless a spec says which; features of the first."""
_BYTES_A_CLASS, _BYTES_A_PREVIEW_PIXEL, _BYTES_A_FEATURE = 24, 5, 2


class Settings(base.Settings):
    """The backbone, how it reads, the data set's contents, and the protocol."""

    backbone: Identity
    inference: Inference
    refiner: ComponentIdentity
    dataset: Identity
    classes: list[list[str]]
    short_side_px: int
    protocol: Protocol
    pictures: list[int] | None = Field(None, exclude_if=lambda places: places is None)

    @property
    def pictured(self) -> list[int]:
        """The places of the images that are kept with labels, the features of the first of them."""
        return _pictured(self.pictures)

    @property
    def resize(self) -> Resize:
        """How images are resized."""
        return Resize(self.short_side_px, self.protocol.long_side_px)


class Places(base.Places):
    """The backbone and its sizes; the refiner; the data set, and what it holds."""

    backbone: BackboneSpec
    sizes: Sizes
    refiner: PluginSpec
    dataset: DatasetSpec
    display_name: str
    image_hw: tuple[int, int]
    n_images: int


class Summary(base.Summary):
    """The score, as a fraction, and how many images it is of."""

    miou: float
    n_images: int
    n_skipped: int


class Stage(base.Stage):
    """An evaluation; made from `text` or `linear_probe`, and `student` unless it is pretrained."""

    kind: ClassVar[str] = "evaluate"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "spar_bench.run.evaluate:make_evaluations"
    helper: ClassVar[str] = "spar_bench.run.evaluate:help_evaluations"

    settings: Settings
    places: Places

    @classmethod
    def of(
        cls,
        point: ResolvedPoint,
        method: Method,
        data: ResolvedDataset,
        short_side_px: int,
        *,
        protocol: Protocol,
        inputs: Mapping[str, str],
    ) -> Self:
        """Return the evaluation of a method of a point on a data set."""
        backbone = point.backbone
        return cls(
            settings=Settings(
                backbone=backbone.identity,
                inference=point.inference(method),
                refiner=point.refiner,
                dataset=data.identity,
                classes=data.classes,
                short_side_px=short_side_px,
                protocol=protocol,
                pictures=data.spec.pictures,
            ),
            inputs=dict(inputs),
            places=Places(
                backbone=backbone.spec,
                sizes=backbone.sizes,
                refiner=point.settings.evaluate.refiner,
                dataset=data.spec,
                display_name=data.display_name,
                image_hw=data.image_hw,
                n_images=data.n_images,
            ),
        )

    @cached_property
    def batch_key(self) -> str:
        """A key that stages share if one pass over the images can serve them all.

        They have the same weights, images and protocol, and windows of one size, averaged in the
        same way: a window that two strides have in common is then encoded once.
        """
        inference = self.settings.inference
        shared = self.settings.model_dump(mode="json", exclude={"inference"})
        return digest([shared, self.inputs, inference.window_px, inference.average])

    @property
    def n_queries(self) -> int:
        """Number of scores of a pixel: every synonym's, or with a linear probe every class's."""
        classes = self.settings.classes
        return len(classes) if "linear_probe" in self.inputs else sum(map(len, classes))

    @property
    def precision(self) -> Precision:
        """That of the backbone's forward pass."""
        return self.settings.protocol.precision

    @property
    def title(self) -> str:
        """Who reads what, and how."""
        method = method_of(self.settings.inference, self.inputs)
        how = reading(self.settings.inference)
        if "linear_probe" in self.inputs:
            how += ", linear probe"
        return f"{method} on {self.places.display_name} at {self.settings.short_side_px} px, {how}"

    def estimate(self, stages: Mapping[str, base.Stage]) -> Estimate:
        """Return the work of reading every image, and the bytes of counts and previews."""
        places, settings = self.places, self.settings
        image_hw, sizes = settings.resize.of(places.image_hw), places.sizes
        flops = self.refining_flops(places.image_hw) + image_flops(
            sizes, settings.inference, image_hw, n_queries=self.n_queries
        )
        height, width = places.image_hw
        rows, columns = sizes.grid_hw(image_hw)
        n_pictured = min(places.n_images, len(settings.pictured))
        n_bytes = (
            places.n_images * len(settings.classes) * _BYTES_A_CLASS
            + n_pictured * height * width * _BYTES_A_PREVIEW_PIXEL
            + rows * columns * sizes.channels * _BYTES_A_FEATURE
        )
        n_windows = windows_of(sizes, settings.inference, image_hw)
        return Estimate(flops * places.n_images / 1e9, n_bytes, n_windows)

    def refining_flops(self, truth_hw: tuple[int, int]) -> int:
        """Return the FLOPs of refining one image of a size, 0 if they are not stated."""
        places, settings = self.places, self.settings
        image_hw, n_queries = settings.resize.of(truth_hw), self.n_queries
        stated = refining_flops(
            places.refiner, places.sizes, image_hw, truth_hw, n_queries=n_queries
        )
        return stated or 0

    def gflops_of_batch(
        self, batch: Sequence[base.Stage], stages: Mapping[str, base.Stage]
    ) -> float:
        """Return the work of reading every image once: a window that strides share counts once."""
        ways = [one.settings.inference for one in batch if isinstance(one, Stage)]
        sizes, image_hw = self.places.sizes, self.settings.resize.of(self.places.image_hw)
        apart = sum(windows_flops(sizes, way, image_hw) for way in ways)
        saved = apart - shared_flops(sizes, ways, image_hw)
        return super().gflops_of_batch(batch, stages) - self.places.n_images * saved / 1e9

    def identities(self, resolver: Resolver) -> Mapping[str, Any]:
        """Return the identities of backbone, refiner and data set now."""
        return {
            "backbone": resolver.backbone(self.places.backbone).identity,
            "refiner": resolver.refiner(self.places.refiner),
            "dataset": resolver.dataset(self.places.dataset).identity,
        }


def read_names(finished: Finished) -> list[str]:
    """Return the names of the evaluated images, in order."""
    names: list[str] = json.loads(finished.path(NAMES_FILE).read_text(encoding="utf-8"))
    return names


def read_counts(finished: Finished) -> Counts:
    """Return the per-image pixel counts."""
    arrays = load_file(finished.path(COUNTS_FILE))
    names = names_digest(read_names(finished))
    return Counts(arrays["correct"], arrays["predicted"], arrays["true"], names)


def read_skipped(finished: Finished) -> list[str]:
    """Return why images could not be read, in order; none if all could."""
    skipped = json.loads(finished.path(SKIPPED_FILE).read_text(encoding="utf-8"))
    return [one["reason"] for one in skipped]


def read_preview(finished: Finished) -> Preview:
    """Return the images that were kept, with truth and prediction."""
    names = read_names(finished)
    places = _pictured(finished.manifest["settings"].get("pictures"))
    names = [names[place] for place in places if place < len(names)]
    arrays = [load_file(finished.path(preview_file(index))) for index in range(len(names))]
    return Preview(
        names,
        [one["image"] for one in arrays],
        [one["truth"] for one in arrays],
        [one["prediction"] for one in arrays],
    )


def read_features(finished: Finished) -> NDArray[np.float16]:
    """Return the features `(C, h, w)` of the first image kept, even if windows average logits."""
    features: NDArray[np.float16] = load_file(finished.path(preview_file(0)))["features"]
    return features


def _pictured(stated: list[int] | None) -> list[int]:
    """Return the places of the images that are kept, in order: those stated, else the first."""
    return list(range(N_PREVIEWS)) if stated is None else sorted(stated)


def preview_file(index: int) -> str:
    """Return the file name of one of the images kept, counted among them."""
    return f"preview_{index}.safetensors"
