"""The backbones: one plug-in per file, and the sizes of each in data files, without torch."""

from typing import Any

from spar_bench.components import backbone as _backbone
from spar_bench.components.backbone import (
    card,
    display_name,
    exported_from,
    has_random_weights,
    known_sizes,
    not_offered,
    require_text,
    sizes,
    stated_sizes,
    text_sizes,
    weights_of,
)
from spar_bench.components.backbone import interpolation_of as interpolation
from spar_bench.components.backbone import require_backbone_tokenizer as require_tokenizer
from spar_bench.components.backbone import require_known_model as require_model
from spar_bench.components.identity import ComponentIdentity
from spar_bench.components.sizes import Sizes, TextSizes
from spar_bench.components.weights import CONFIG_FILE, BackboneCard, Weights
from spar_bench.spec.schema import BackboneSpec

__all__ = [
    "CONFIG_FILE",
    "BackboneCard",
    "Sizes",
    "TextSizes",
    "Weights",
    "card",
    "display_name",
    "exported_from",
    "has_random_weights",
    "identity",
    "interpolation",
    "known_sizes",
    "not_offered",
    "require_model",
    "require_text",
    "require_tokenizer",
    "sizes",
    "stated_sizes",
    "text_identity",
    "text_sizes",
    "weights_of",
]


def identity(spec: BackboneSpec) -> dict[str, Any]:
    """Return a backbone's identity as JSON."""
    return _backbone.identity(spec).model_dump(mode="json")


def text_identity(known: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the embeddings of prompts, as JSON."""
    return _backbone.text_identity(ComponentIdentity(**known)).model_dump(mode="json")
