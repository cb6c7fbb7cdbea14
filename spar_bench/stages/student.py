"""A student: the weights that were distilled from a teacher, and its training curve."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

from pydantic import Field

from spar_bench import registry
from spar_bench.components.flops import (
    n_frozen_blocks,
    prefix_flops,
    trained_params,
    training_flops,
    update_flops,
)
from spar_bench.components.sizes import Sizes
from spar_bench.registry import PluginIdentity
from spar_bench.resolve import ResolvedPoint, Resolver
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec, StudentSpec
from spar_bench.stage import Finished, digest
from spar_bench.stages import base, images, targets
from spar_bench.stages.base import Estimate, Identity
from spar_bench.values import Precision

VERSION = 3
TRAINED_FILE = "trained.safetensors"
"""The trained tensors, by their names in the image tower."""
CURVE_FILE = "curve.json"
"""Step, loss, and milliseconds since the epoch, for each step."""
BYTES_A_WEIGHT = 4
KEPT_BYTES = 1 << 30
"""Memory for what frozen blocks give for images that are read again, of students made together."""


class Settings(base.Settings):
    """The backbone, the recipe, and the seed of the order of images.

    The read-out states the closed form of the FLOPs that training takes. Of `n_lists` equal parts
    of the drawn images, each epoch reads one, or if it is 1, every epoch reads all.
    """

    backbone: Identity
    read_out: PluginIdentity
    recipe: StudentSpec
    loss: PluginIdentity
    seed: int
    n_lists: int = Field(1, exclude_if=lambda n_lists: n_lists == 1)

    @property
    def reads_again(self) -> bool:
        """Whether an image is read in more than one epoch."""
        return self.recipe.epochs > self.n_lists


class Places(base.Places):
    """The backbone and its sizes, the loss, the images' source, and how their targets are made."""

    backbone: BackboneSpec
    sizes: Sizes
    loss: PluginSpec
    images: images.Places
    teaching: targets.Settings
    keeps_targets: bool


class Summary(base.Summary):
    """What was trained, and the mean loss of the last epoch.

    `train_gflops` is the student's own part, as if it were trained alone and ran its frozen blocks
    for every image; `teach_gflops` the teacher's, 0 if its targets are kept. `train_seconds` is
    this student's time, with its share of what several trained side by side have in common.
    """

    n_steps: int
    trained_params: int
    final_loss: float
    train_gflops: float
    teach_gflops: float
    train_seconds: float
    backbone: BackboneSpec


class Stage(base.Stage):
    """A trained student; made from `images` and `targets`.

    Targets that are not kept are not a stage of the plan: the student computes them as it trains.
    """

    kind: ClassVar[str] = "student"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "spar_bench.run.student:make_students"
    joint: ClassVar[bool] = True

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
                n_lists=point.settings.n_lists,
            ),
            inputs={"images": listed.fingerprint, "targets": taught.fingerprint},
            places=Places(
                backbone=point.backbone.spec,
                sizes=point.backbone.sizes,
                loss=recipe.loss,
                images=listed.places,
                teaching=taught.settings,
                keeps_targets=point.settings.keeps_targets,
            ),
        )

    @cached_property
    def batch_key(self) -> str:
        """A key that students share if one stream of images and targets can serve them all.

        They start from the same weights, and take as many steps on the same images in the same
        order, in one precision.
        """
        settings, recipe = self.settings, self.settings.recipe
        order = [settings.seed, settings.n_lists, recipe.epochs, recipe.accumulate]
        return digest([self.kind, settings.backbone, self.inputs, *order, recipe.precision])

    @property
    def precision(self) -> Precision:
        """That of its forward pass."""
        return self.settings.recipe.precision

    @property
    def divisible(self) -> bool:
        """Whether several devices may each train some: not if each would have its own teacher."""
        return self.places.keeps_targets

    @property
    def title(self) -> str:
        """What it trains, with which loss and seed."""
        recipe = self.settings.recipe
        part = recipe.trainable.replace("_", " ")
        return f"student {part}, {recipe.loss.name}, seed {self.settings.seed}"

    def bytes_read(self, stages: Mapping[str, base.Stage]) -> int:
        """Return the bytes of its inputs, kept targets read once an epoch."""
        n_targets = self.settings.recipe.epochs - 1 if self.places.keeps_targets else 0
        taught = stages.get(self.inputs["targets"])
        again = n_targets * taught.estimate(stages).n_bytes if taught else 0
        return super().bytes_read(stages) + again

    def estimate(self, stages: Mapping[str, base.Stage]) -> Estimate:
        """Return the work of training, targets included if they are not kept; bytes of weights."""
        n_params = trained_params(self.places.sizes, self.settings.recipe.trainable)
        return Estimate(self.gflops_of_batch([self], stages), n_params * BYTES_A_WEIGHT)

    def gflops_of_batch(
        self, batch: Sequence[base.Stage], stages: Mapping[str, base.Stage]
    ) -> float:
        """Return the work of training students side by side, frozen blocks and teacher shared."""
        counted = targets.drawn(self, stages)
        recipe, n_lists = self.settings.recipe, self.settings.n_lists
        n_times = recipe.epochs // n_lists  # that each image is read
        n_steps = recipe.epochs * recipe.steps_an_epoch(sum(counted.values()) // n_lists)
        flops = 0.0
        for one in batch:
            assert isinstance(one, Stage), "a batch is of one kind"
            flops += n_times * sum(n * one.own_flops(hw) for hw, n in counted.items())
            flops += n_steps * one.update_flops
        frozen = frozen_of(batch, stages)
        flops += frozen.flops * (1 + (n_times - 1) * (1 - frozen.kept_share))
        if not self.places.keeps_targets:
            teacher = self.places.teaching.teacher
            flops += n_times * targets.teaching(self.places.sizes, teacher, counted)[0]
        return flops / 1e9

    def own_flops(self, image_hw: tuple[int, int]) -> int:
        """Return the FLOPs of a forward and backward pass behind the frozen blocks."""
        sizes, trainable = self.places.sizes, self.settings.recipe.trainable
        n_frozen = n_frozen_blocks(sizes, trainable)
        before = 0 if n_frozen is None else prefix_flops(sizes, image_hw, n_frozen)
        return training_flops(sizes, image_hw, trainable) - before

    @property
    def update_flops(self) -> int:
        """FLOPs of updating the weights once."""
        recipe = self.settings.recipe
        return update_flops(self.places.sizes, recipe.optimiser, recipe.trainable)

    def identities(self, resolver: Resolver) -> Mapping[str, Any]:
        """Return the identities of backbone and loss now."""
        return {
            "backbone": resolver.backbone(self.places.backbone).identity,
            "loss": resolver.plugin("losses", self.places.loss),
        }


@dataclass(frozen=True)
class FrozenWork:
    """What frozen blocks of students take for all images once, and what they give: its bytes."""

    flops: int
    n_bytes: int

    @property
    def kept_share(self) -> float:
        """Which share of it is kept in memory, for images that are read again."""
        return min(1.0, KEPT_BYTES / self.n_bytes) if self.n_bytes else 1.0


def frozen_of(batch: Sequence[base.Stage], stages: Mapping[str, base.Stage]) -> FrozenWork:
    """Return the work of the frozen blocks of students that are made side by side."""
    depths, lead = set[int](), batch[0]
    for one in batch:
        assert isinstance(one, Stage), "a batch is of one kind"
        depth = n_frozen_blocks(one.places.sizes, one.settings.recipe.trainable)
        depths |= set() if depth is None else {depth}
    assert isinstance(lead, Stage), "a batch is of one kind"
    if not depths:
        return FrozenWork(0, 0)
    sizes, flops, n_bytes = lead.places.sizes, 0, 0
    a_value = 4 if lead.settings.recipe.precision == "float32" else 2
    for image_hw, n in targets.drawn(lead, stages).items():
        tokens = math.prod(sizes.grid_hw(image_hw)) + sizes.prefix_tokens
        flops += n * prefix_flops(sizes, image_hw, max(depths))
        n_bytes += n * tokens * sizes.width * a_value * len(depths)
    return FrozenWork(flops, n_bytes)


def read_curve(finished: Finished) -> list[tuple[int, float, int]]:
    """Return (step, loss, milliseconds since the epoch) for each step."""
    points = json.loads(finished.path(CURVE_FILE).read_text(encoding="utf-8"))
    return [(step, loss, at_ms) for step, loss, at_ms in points]
