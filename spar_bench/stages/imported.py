"""A student that was trained elsewhere: the weights of its checkpoint that differ."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from spar_bench.components.flops import trained_params
from spar_bench.components.sizes import Sizes
from spar_bench.resolve import ResolvedBackbone, Resolver
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stages import base
from spar_bench.stages.base import Estimate, Identity
from spar_bench.stages.student import BYTES_A_WEIGHT

VERSION = 1


class Settings(base.Settings):
    """The backbone, and the checkpoint's contents."""

    backbone: Identity
    checkpoint: str


class Places(base.Places):
    """The backbone, its sizes, and the checkpoint's file."""

    backbone: BackboneSpec
    sizes: Sizes
    checkpoint: str


class Summary(base.Summary):
    """What the checkpoint changes."""

    trained_tensors: int
    all_tensors: int
    trained_params: int
    checkpoint: str
    backbone: BackboneSpec


class Stage(base.Stage):
    """An imported student; its files are those of a trained one, its curve is empty."""

    kind: ClassVar[str] = "imported"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "spar_bench.run.imported:make_imported"

    settings: Settings
    places: Places

    @classmethod
    def of(cls, backbone: ResolvedBackbone, checkpoint: str, resolver: Resolver) -> Self:
        """Return the student of a checkpoint's file."""
        sha256 = resolver.checkpoint(checkpoint)
        return cls(
            settings=Settings(backbone=backbone.identity, checkpoint=sha256),
            places=Places(backbone=backbone.spec, sizes=backbone.sizes, checkpoint=checkpoint),
        )

    @property
    def title(self) -> str:
        """Which file."""
        return f"student of {self.places.checkpoint}"

    def estimate(self, stages: Mapping[str, base.Stage]) -> Estimate:
        """Return no work, and the bytes of all weights."""
        return Estimate(0.0, trained_params(self.places.sizes, "all") * BYTES_A_WEIGHT)

    def identities(self, resolver: Resolver) -> Mapping[str, Any]:
        """Return the identities of backbone and checkpoint now."""
        return {
            "backbone": resolver.backbone(self.places.backbone).identity,
            "checkpoint": resolver.checkpoint(self.places.checkpoint),
        }
