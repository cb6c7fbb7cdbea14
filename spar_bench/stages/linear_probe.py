"""A linear classifier of frozen features, and the curve of its training."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from spar_bench.components.sizes import Sizes
from spar_bench.inference import SINGLE_PASS, Inference, Resize
from spar_bench.plan.cost import windows_flops, windows_of
from spar_bench.protocol import Protocol
from spar_bench.resolve import ResolvedDataset, ResolvedPoint, ResolvedTraining, Resolver
from spar_bench.spec.schema import BackboneSpec, ClassifierSpec, DatasetSpec
from spar_bench.stages import base
from spar_bench.stages.base import Estimate, Identity
from spar_bench.stages.cost import method_of
from spar_bench.values import Method, Precision

VERSION = 2
PROBE_FILE = "probe.safetensors"
"""`weight` `(K, C)` and `bias` `(K)`, in float32: a score for each class from plain features."""
CURVE_FILE = "curve.json"
"""Step, loss, and milliseconds since the epoch, for each step."""
SKIPPED_FILE = "skipped.json"
"""Index and reason for each training image that could not be read."""
_BYTES_A_WEIGHT, _BYTES_A_FEATURE, _BYTES_A_LABEL = 4, 2, 1


class Settings(base.Settings):
    """The backbone and how it reads, the labelled training images, and the recipe.

    Windows are averaged as features, whatever an evaluation averages: the classifier is linear.
    """

    backbone: Identity
    inference: Inference
    dataset: Identity
    n_classes: int
    short_side_px: int
    long_side_px: int | None
    resize: str
    precision: Precision
    unreadable: str
    recipe: ClassifierSpec

    @property
    def reading_size(self) -> Resize:
        """How images are resized."""
        return Resize(self.short_side_px, self.long_side_px)


class Places(base.Places):
    """The backbone and its sizes; the data set, and what its training images are."""

    backbone: BackboneSpec
    sizes: Sizes
    dataset: DatasetSpec
    display_name: str
    image_hw: tuple[int, int]
    n_images: int


class Summary(base.Summary):
    """What it was trained on, for how long, and the mean loss of the last epoch."""

    n_images: int
    n_skipped: int
    n_steps: int
    final_loss: float


class Stage(base.Stage):
    """A linear probe; made from `student`, or from nothing if the weights are pretrained."""

    kind: ClassVar[str] = "linear_probe"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "spar_bench.run.linear_probe:make_linear_probes"

    settings: Settings
    places: Places

    @classmethod
    def of(
        cls,
        point: ResolvedPoint,
        method: Method,
        data: ResolvedDataset,
        training: ResolvedTraining,
        *,
        short_side_px: int,
        protocol: Protocol,
        inputs: Mapping[str, str],
    ) -> Self:
        """Return the probe of a method of a point, for the classes of a data set."""
        backbone = point.backbone
        return cls(
            settings=Settings(
                backbone=backbone.identity,
                inference=point.teaching if method == "teacher" else SINGLE_PASS,
                dataset=training.identity,
                n_classes=len(data.classes),
                short_side_px=short_side_px,
                long_side_px=protocol.long_side_px,
                resize=protocol.resize,
                precision=protocol.precision,
                unreadable=protocol.unreadable,
                recipe=point.settings.evaluate.classifier,
            ),
            inputs=dict(inputs),
            places=Places(
                backbone=backbone.spec,
                sizes=backbone.sizes,
                dataset=data.spec,
                display_name=data.display_name,
                image_hw=training.image_hw,
                n_images=training.n_images,
            ),
        )

    @property
    def title(self) -> str:
        """Of what features, and for which classes."""
        method = method_of(self.settings.inference, self.inputs)
        return f"linear probe of {method} on {self.places.display_name}"

    def estimate(self, stages: Mapping[str, base.Stage]) -> Estimate:
        """Return the work of reading and training, and the bytes that it takes meanwhile.

        Features are kept while it is made, of every image and its mirror image, if both are drawn.
        """
        places, settings, recipe = self.places, self.settings, self.settings.recipe
        sizes, image_hw = places.sizes, settings.reading_size.of(places.image_hw)
        n_images = min(recipe.count or places.n_images, places.n_images)
        seldom = recipe.flip**recipe.epochs + (1 - recipe.flip) ** recipe.epochs
        n_read = n_images * (2 - seldom)
        flops = n_read * windows_flops(sizes, settings.inference, image_hw)
        n_values = math.prod(sizes.grid_hw(image_hw)) * sizes.channels
        flops += recipe.epochs * n_images * training_flops(n_values, settings.n_classes)
        bytes_an_image = n_values * _BYTES_A_FEATURE
        bytes_an_image += math.prod(places.image_hw) * _BYTES_A_LABEL
        n_bytes = settings.n_classes * (sizes.channels + 1) * _BYTES_A_WEIGHT
        n_windows = windows_of(sizes, settings.inference, image_hw)
        return Estimate(flops / 1e9, n_bytes + round(n_read * bytes_an_image), n_windows)

    def identities(self, resolver: Resolver) -> Mapping[str, Any]:
        """Return the identities of backbone and training images now."""
        return {
            "backbone": resolver.backbone(self.places.backbone).identity,
            "dataset": resolver.training(self.places.dataset).identity,
        }


def training_flops(n_values: int, n_classes: int) -> int:
    """Return the FLOPs of a forward and backward pass over the features of one image.

    Features need no gradient, so that the backward pass is one product, as the forward pass is.
    """
    return 2 * 2 * n_values * n_classes
