"""A student: the weights that were distilled from a teacher, and its training curve."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from spar_bench import registry
from spar_bench.components.flops import trained_params, training_flops
from spar_bench.components.sizes import Sizes
from spar_bench.registry import PluginIdentity
from spar_bench.resolve import ResolvedPoint, Resolver
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec, StudentSpec
from spar_bench.stage import Finished
from spar_bench.stages import base, images, targets
from spar_bench.stages.base import Estimate, Identity

VERSION = 2
TRAINED_FILE = "trained.safetensors"
"""The trained tensors, by their names in the image tower."""
CURVE_FILE = "curve.json"
"""Step, loss, and milliseconds since the epoch, for each step."""
BYTES_A_WEIGHT = 4


class Settings(base.Settings):
    """The backbone, the recipe, and the seed of the order of images.

    The read-out states the closed form of the FLOPs that training takes.
    """

    backbone: Identity
    read_out: PluginIdentity
    recipe: StudentSpec
    loss: PluginIdentity
    seed: int


class Places(base.Places):
    """The backbone and its sizes, the loss, the images' source, and how their targets are made."""

    backbone: BackboneSpec
    sizes: Sizes
    loss: PluginSpec
    images: images.Places
    teaching: targets.Settings
    keeps_targets: bool


class Summary(base.Summary):
    """What was trained, for how long, and the mean loss of the last epoch."""

    n_steps: int
    trained_params: int
    final_loss: float
    train_gflops: float
    backbone: BackboneSpec


class Stage(base.Stage):
    """A trained student; made from `images` and `targets`.

    Targets that are not kept are not a stage of the plan: the student computes them as it trains.
    """

    kind: ClassVar[str] = "student"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "spar_bench.run.student:make_students"

    settings: Settings
    places: Places

    @classmethod
    def of(
        cls, point: ResolvedPoint, listed: images.Stage, taught: targets.Stage, seed: int
    ) -> Self:
        """Return the student of a point with a seed."""
        recipe = point.settings.student  # which may name the loss by path, and paths decide nothing
        return cls(
            settings=Settings(
                backbone=point.backbone.identity,
                read_out=registry.identity("read_outs", point.backbone.sizes.read_out),
                recipe=recipe.model_copy(update={"loss": PluginSpec(name=point.loss.name)}),
                loss=point.loss,
                seed=seed,
            ),
            inputs={"images": listed.fingerprint, "targets": taught.fingerprint},
            places=Places(
                backbone=point.backbone.spec,
                sizes=point.backbone.sizes,
                loss=recipe.loss,
                images=listed.places,
                teaching=taught.settings,
                keeps_targets=point.settings.teacher.keep,
            ),
        )

    @property
    def title(self) -> str:
        """What it trains, with which loss and seed."""
        recipe = self.settings.recipe
        part = recipe.trainable.replace("_", " ")
        return f"student {part}, {recipe.loss.name}, seed {self.settings.seed}"

    def estimate(self, stages: Mapping[str, base.Stage]) -> Estimate:
        """Return the work of training, targets included if they are not kept; bytes of weights."""
        recipe, sizes = self.settings.recipe, self.places.sizes
        counted = targets.drawn(self, stages)
        flops = sum(n * training_flops(sizes, hw, recipe.trainable) for hw, n in counted.items())
        if not self.places.keeps_targets:
            flops += targets.teaching(sizes, self.places.teaching.teacher, counted)[0]
        n_bytes = trained_params(sizes, recipe.trainable) * BYTES_A_WEIGHT
        return Estimate(recipe.epochs * flops / 1e9, n_bytes)

    def identities(self, resolver: Resolver) -> Mapping[str, Any]:
        """Return the identities of backbone and loss now."""
        return {
            "backbone": resolver.backbone(self.places.backbone).identity,
            "loss": resolver.plugin("losses", self.places.loss),
        }


def read_curve(finished: Finished) -> list[tuple[int, float, int]]:
    """Return (step, loss, milliseconds since the epoch) for each step."""
    points = json.loads(finished.path(CURVE_FILE).read_text(encoding="utf-8"))
    return [(step, loss, at_ms) for step, loss, at_ms in points]
