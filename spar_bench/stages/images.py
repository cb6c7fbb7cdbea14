"""The drawn list of distillation images."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from spar_bench.drawing import Drawing, Drawn, drawn_sizes
from spar_bench.resolve import ResolvedPoint, ResolvedSource, Resolver
from spar_bench.spec.images import SourceSpec
from spar_bench.stage import Finished
from spar_bench.stages import base
from spar_bench.stages.base import Estimate, Identity

VERSION = 3
LIST_FILE = "images.json"
_BYTES_AN_IMAGE = 100


class Settings(base.Settings):
    """The source's contents, and what decides the list drawn from it."""

    source: Identity
    drawing: Drawing


class Places(base.Places):
    """The source, and what it holds."""

    source: SourceSpec
    image_hw: tuple[int, int]
    n_images: int


class Summary(base.Summary):
    """How many images were drawn."""

    n_images: int


class Stage(base.Stage):
    """The list of distillation images of one seed."""

    kind: ClassVar[str] = "images"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "spar_bench.run.teach:make_images"

    settings: Settings
    places: Places

    @classmethod
    def of(cls, point: ResolvedPoint, source: ResolvedSource, seed: int) -> Self:
        """Return the list that a point's student is trained on."""
        images = point.settings.images
        drawing = Drawing(
            **images.model_dump(exclude={"source", "count", "smallest_side_px", "fresh"}),
            count=images.count * point.settings.n_lists,
            seed=seed,
            patch_px=point.backbone.sizes.patch_px,
            shortest_px=point.shortest_px,
        )
        return cls(
            settings=Settings(source=source.identity, drawing=drawing),
            places=Places(source=source.spec, image_hw=source.image_hw, n_images=source.n_images),
        )

    @property
    def title(self) -> str:
        """How many images, of which seed."""
        drawing = self.settings.drawing
        return f"{drawing.count} images, seed {drawing.seed}"

    @property
    def sizes(self) -> Mapping[tuple[int, int], int]:
        """How many of the drawn images have each size, if all of the source have its own."""
        return drawn_sizes(self.settings.drawing, self.places.n_images, self.places.image_hw)

    def estimate(self, stages: Mapping[str, base.Stage]) -> Estimate:
        """Return no work, and the size of the list."""
        return Estimate(0.0, _BYTES_AN_IMAGE * self.settings.drawing.count)

    def identities(self, resolver: Resolver) -> Mapping[str, Any]:
        """Return the source's identity now."""
        return {"source": resolver.source(self.places.source).identity}


def read_list(finished: Finished) -> list[Drawn]:
    """Return the drawn list."""
    text = finished.path(LIST_FILE).read_text(encoding="utf-8")
    return [Drawn.from_json(one) for one in json.loads(text)]
