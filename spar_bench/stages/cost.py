"""The cost of reading one image: GFLOPs, windows and parameters, checked by a counter."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import ClassVar, Self

from pydantic import JsonValue

from spar_bench import registry
from spar_bench.components.identity import ComponentIdentity
from spar_bench.components.sizes import Sizes
from spar_bench.inference import Inference
from spar_bench.plan.cost import image_flops, refining_flops
from spar_bench.registry import PluginIdentity
from spar_bench.resolve import ResolvedPoint
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stages import base
from spar_bench.stages.base import Estimate
from spar_bench.values import Method, Precision

VERSION = 3
COST_FILE = "cost.json"
_BYTES = 2_000


class Settings(base.Settings):
    """What decides the cost, which excludes weights and positions.

    The architecture is what sizes leave open, such as the activation. The read-out states the
    closed form of what follows the patch embedding.
    """

    backbone: PluginIdentity
    architecture: str
    read_out: PluginIdentity
    sizes: dict[str, JsonValue]
    inference: Inference
    refiner: ComponentIdentity
    image_hw: tuple[int, int]
    n_queries: int
    precision: Precision

    @property
    def known_sizes(self) -> Sizes:
        """The backbone's sizes, its rule for position embeddings aside."""
        return Sizes(**self.sizes)  # type: ignore[arg-type]  # as `asdict` gave them

    def at(self, image_hw: tuple[int, int]) -> Self:
        """Return what decides the cost of an image of another size."""
        return self.model_copy(update={"image_hw": image_hw})

    def flops(self, refiner: PluginSpec) -> int | None:
        """Return the FLOPs of reading the image: encoder, products with text, refiner.

        None if the refiner, named as in `Places`, does not state its own.
        """
        sizes, image_hw, n_queries = self.known_sizes, self.image_hw, self.n_queries
        refining = refining_flops(refiner, sizes, image_hw, image_hw, n_queries=n_queries)
        if refining is None:
            return None
        return refining + image_flops(sizes, self.inference, image_hw, n_queries=n_queries)


class Places(base.Places):
    """A backbone of these sizes and a refiner that can be built."""

    backbone: BackboneSpec
    refiner: PluginSpec


class Summary(base.Summary):
    """The figures; one encoder pass is of an image or of a window.

    `gflops` and `params_m` are None where the refiner does not state its own.
    """

    gflops: float | None
    encoder_gflops_a_pass: float
    encoder_gflops_a_pass_counted: float
    n_windows: int
    params_m: float | None


class Stage(base.Stage):
    """The cost of one image of one size with one method."""

    kind: ClassVar[str] = "cost"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "spar_bench.run.cost:make_cost"

    settings: Settings
    places: Places

    @classmethod
    def of(
        cls, point: ResolvedPoint, method: Method, image_hw: tuple[int, int], *, n_queries: int
    ) -> Self:
        """Return the cost of a method of a point for an image of a size."""
        spec, sizes = point.backbone.spec, asdict(point.backbone.sizes)
        del sizes["position_embedding"]
        return cls(
            settings=Settings(
                backbone=registry.identity("backbones", spec.name),
                architecture=point.backbone.architecture,
                read_out=registry.identity("read_outs", point.backbone.sizes.read_out),
                sizes=sizes,
                inference=point.inference(method),
                refiner=point.refiner,
                image_hw=image_hw,
                n_queries=n_queries,
                precision=point.settings.evaluate.precision,
            ),
            places=Places(backbone=spec, refiner=point.settings.evaluate.refiner),
        )

    @property
    def title(self) -> str:
        """How it is read, and the image's size."""
        return f"cost of {reading(self.settings.inference)} at {size(self.settings.image_hw)}"

    def estimate(self, stages: Mapping[str, base.Stage]) -> Estimate:
        """Return no work: tensors without values are counted."""
        return Estimate(0.0, _BYTES)


def method_of(inference: Inference, inputs: Mapping[str, str]) -> Method:
    """Return the method that reads so, with the weights of a student if there is one."""
    if inference.kind == "sliding_window":
        return "teacher"
    return "student" if "student" in inputs else "pretrained"


def reading(inference: Inference) -> str:
    """Say how an image is read: `single pass`, or the stride and window."""
    if inference.window_px is None:
        return "a single pass"
    return f"windows, s = {inference.stride_px}, w = {inference.window_px}"


def size(image_hw: tuple[int, int]) -> str:
    """Write a size, height first."""
    return f"{image_hw[0]}x{image_hw[1]} px"
