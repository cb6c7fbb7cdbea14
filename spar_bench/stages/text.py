"""The embedded class names of a data set; no student changes the text tower."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from spar_bench.components.flops import prompt_flops
from spar_bench.components.sizes import TextSizes
from spar_bench.protocol import Protocol
from spar_bench.resolve import ResolvedDataset, ResolvedPoint, Resolver
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stages import base
from spar_bench.stages.base import Estimate, Identity
from spar_bench.values import Templates

VERSION = 1
QUERIES_FILE = "queries.safetensors"
_N_OPENCLIP = 80
_BYTES_A_VALUE = 4


class Settings(base.Settings):
    """The text tower, and the prompts of every name."""

    text_tower: Identity
    classes: list[list[str]]
    templates: Templates

    @property
    def names(self) -> list[str]:
        """Every name of every class, in order: one query each."""
        return [name for synonyms in self.classes for name in synonyms]


class Places(base.Places):
    """The backbone, its channels, and the sizes of its text tower if they are known."""

    backbone: BackboneSpec
    channels: int
    text_sizes: TextSizes | None


class Summary(base.Summary):
    """Queries, and the prompts embedded for them."""

    n_queries: int
    n_prompts: int


class Stage(base.Stage):
    """The queries that features are compared with."""

    kind: ClassVar[str] = "text"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "spar_bench.run.text:make_text"

    settings: Settings
    places: Places

    @classmethod
    def of(cls, point: ResolvedPoint, data: ResolvedDataset, protocol: Protocol) -> Self:
        """Return the queries of a data set under a protocol."""
        backbone = point.backbone
        assert protocol.templates is not None, "only a linear probe has no prompts"
        return cls(
            settings=Settings(
                text_tower=backbone.text_identity,
                classes=data.classes,
                templates=protocol.templates,
            ),
            places=Places(
                backbone=backbone.spec,
                channels=backbone.sizes.channels,
                text_sizes=backbone.text_sizes,
            ),
        )

    @property
    def title(self) -> str:
        """How many names."""
        return f"text of {len(self.settings.names)} names"

    def estimate(self, stages: Mapping[str, base.Stage]) -> Estimate:
        """Return the work of embedding every prompt, 0 where sizes are unknown."""
        templates, n_names = self.settings.templates, len(self.settings.names)
        n_prompts = n_names * (_N_OPENCLIP if templates == "openclip_80" else len(templates))
        n_bytes = n_names * self.places.channels * _BYTES_A_VALUE
        return Estimate(n_prompts * prompt_flops(self.places.text_sizes) / 1e9, n_bytes)

    def identities(self, resolver: Resolver) -> Mapping[str, Any]:
        """Return the text tower's identity now."""
        return {"text_tower": resolver.backbone(self.places.backbone).text_identity}
