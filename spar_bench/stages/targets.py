"""The teacher's features on the distillation images, one file an image, in half precision."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from spar_bench.components.sizes import Sizes
from spar_bench.inference import Inference
from spar_bench.plan.cost import windows_flops, windows_of
from spar_bench.resolve import ResolvedPoint, Resolver
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stages import base, images
from spar_bench.stages.base import Estimate, Identity
from spar_bench.values import Precision

VERSION = 1
_BYTES_A_VALUE = 2


class Settings(base.Settings):
    """The backbone, how the teacher reads an image, and what becomes of its features.

    What is as it was before it could be chosen is not hashed: old fingerprints stay valid.
    """

    backbone: Identity
    teacher: Inference
    dtype: Literal["float16"] = "float16"
    precision: Precision = Field("float32", exclude_if=lambda value: value == "float32")
    normalise: bool = Field(False, exclude_if=lambda value: value is False)


class Places(base.Places):
    """The backbone, its sizes, and the source of the images."""

    backbone: BackboneSpec
    sizes: Sizes
    images: images.Places


class Summary(base.Summary):
    """Images read, and windows encoded for them; 1e9 FLOPs, None from before they were kept."""

    n_images: int
    n_windows: int
    gflops: float | None = None


class Stage(base.Stage):
    """The features that students regress; made from `images`."""

    kind: ClassVar[str] = "targets"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "spar_bench.run.teach:make_targets"
    helper: ClassVar[str] = "spar_bench.run.teach:help_targets"

    settings: Settings
    places: Places

    @classmethod
    def of(cls, point: ResolvedPoint, listed: images.Stage) -> Self:
        """Return the targets of a point's student on the listed images."""
        return cls(
            settings=Settings(
                backbone=point.backbone.identity,
                teacher=point.teaching,
                precision=point.settings.teacher.precision,
                normalise=point.settings.teacher.normalise,
            ),
            inputs={"images": listed.fingerprint},
            places=Places(
                backbone=point.backbone.spec, sizes=point.backbone.sizes, images=listed.places
            ),
        )

    @property
    def precision(self) -> Precision:
        """That of the teacher's forward pass."""
        return self.settings.precision

    @property
    def title(self) -> str:
        """The teacher's stride and window, and what is unusual."""
        window_px, stride_px = self.settings.teacher.window_and_stride_px
        precision = self.settings.precision
        unusual = list[str]() if precision == "float32" else [str(precision)]
        unusual += ["normalised"] if self.settings.normalise else []
        return ", ".join([f"targets of a teacher, s = {stride_px}, w = {window_px}", *unusual])

    def estimate(self, stages: Mapping[str, base.Stage]) -> Estimate:
        """Return the work of all windows, and the bytes of all features."""
        counted = drawn(self, stages)
        sizes = self.places.sizes
        flops, n_windows = teaching(sizes, self.settings.teacher, counted)
        n_patches = sum(n * math.prod(sizes.grid_hw(image_hw)) for image_hw, n in counted.items())
        n_bytes = n_patches * sizes.channels * _BYTES_A_VALUE
        return Estimate(flops / 1e9, n_bytes, round(n_windows / sum(counted.values())))

    def identities(self, resolver: Resolver) -> Mapping[str, Any]:
        """Return the backbone's identity now."""
        return {"backbone": resolver.backbone(self.places.backbone).identity}


def drawn(stage: base.Stage, stages: Mapping[str, base.Stage]) -> Mapping[tuple[int, int], int]:
    """Return how many of the images that a stage is made from have each size."""
    listed = stages[stage.inputs["images"]]
    assert isinstance(listed, images.Stage), "the role says which kind fills it"
    return listed.sizes


def teaching(
    sizes: Sizes, teacher: Inference, counted: Mapping[tuple[int, int], int]
) -> tuple[int, int]:
    """Return the FLOPs and windows of the teacher for reading each image once."""
    flops = sum(n * windows_flops(sizes, teacher, image_hw) for image_hw, n in counted.items())
    n_windows = sum(n * windows_of(sizes, teacher, image_hw) for image_hw, n in counted.items())
    return flops, n_windows


def file_of(position: int) -> str:
    """Return the file name of the features on the image at a position of the drawn list."""
    return f"{position:06d}.safetensors"
