"""The backbones: one plug-in per file, and the sizes of each in data files, without torch."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from spar_bench import registry
from spar_bench.backbones import _models, _tokenizers
from spar_bench.backbones._config import (
    require_architecture,
    sizes_of_config,
    stated_preprocessing,
    text_sizes_of_config,
)
from spar_bench.backbones._contents import checksums, readable
from spar_bench.backbones._shapes import determined_shapes, require_shapes, stated_shapes
from spar_bench.backbones._sizes import Sizes, TextSizes
from spar_bench.backbones._tokenizers import tokenizer_of
from spar_bench.backbones._weights import (
    CONFIG_FILE,
    WEIGHTS_ENDINGS,
    Card,
    Weights,
    exported_from,
    find,
)
from spar_bench.digests import remembered_sha256
from spar_bench.errors import DataFileError, NotReady, SpecError
from spar_bench.spec.schema import BackboneSpec
from spar_bench.validation import data_file_error

__all__ = [
    "CONFIG_FILE",
    "Card",
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

T = TypeVar("T", Sizes, Card)
_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Sizes, Card)}
_FILE_ENDINGS = {*WEIGHTS_ENDINGS, ".yaml", ".yml", ".py"}


def card(name: str) -> Card:
    """Return where a backbone's weights come from, from its data file; empty where it has none.

    Raises:
        UnknownName: no backbone of that name.
        DataFileError: the data file has a key that is not known, or a value that makes no sense.
    """
    return _read(name, Card)


def sizes(spec: BackboneSpec) -> Sizes | None:
    """Return a backbone's sizes with the spec's settings, or None where nothing states them.

    Raises:
        UnknownName: no backbone of that name.
        NotReady: the folder of `path` has no readable config.
        SpecError: the backbone does not have what is asked of it; one line each.
    """
    known = stated_sizes(spec)
    if known is None:
        return None
    refused = [f"backbone.{key}: {text}" for key, text in not_offered(spec, known)]
    if refused:
        raise SpecError(*refused)
    asked: dict[str, Any] = {
        "position_embedding": spec.position_embedding,
        "odd_sides": spec.odd_sides,
        "read_out": spec.read_out,
        "token_budget": spec.token_budget,
    }
    return replace(known, **{key: value for key, value in asked.items() if value is not None})


def stated_sizes(spec: BackboneSpec) -> Sizes | None:
    """Return the sizes of a backbone's data file or config, without the spec's settings.

    None where neither states them; raises UnknownName and NotReady as `sizes` does.
    """
    registry.plugin("backbones", spec.name)  # an unknown name is reported first
    if registry.data("backbones", spec.name):
        return _read(spec.name, Sizes)
    return None if spec.path is None else sizes_of_config(Path(spec.path))


def not_offered(spec: BackboneSpec, known: Sizes) -> Iterator[tuple[str, str]]:
    """Yield the key of each setting that a backbone of these sizes does not have, and why."""
    is_resampled_by_factor = known.position_embedding != "rope" and known.token_budget is None
    offered: dict[str, Sequence[str]] = {
        "read_out": card(spec.name).read_outs or [known.read_out],
        "position_embedding": ["scale_factor", "size"]
        if is_resampled_by_factor
        else [known.position_embedding],
    }
    for key, choices in offered.items():
        asked = getattr(spec, key)
        if asked is not None and asked not in choices:
            choice = " or ".join(choices)
            yield key, f"must be one that {spec.name} has, but got {asked!r}; use {choice}"
    if spec.token_budget is not None and known.token_budget is None:
        yield (
            "token_budget",
            f"must be left out for {spec.name}, which reads images of any size whole, but got "
            f"{spec.token_budget}; drop it",
        )
    if card(spec.name).folder:
        given = {"path": spec.path, "weights": spec.weights if spec.weights == "random" else None}
        for key, value in given.items():
            if value is not None:
                text = f"whose weights are in the package, but got {value!r}; drop it"
                yield key, f"must be left out for {spec.name}, {text}"


def known_sizes(spec: BackboneSpec) -> Sizes:
    """Return a backbone's sizes; raises as `sizes`, and NotReady where nothing states them."""
    known = sizes(spec)
    if known is None:
        raise NotReady(
            f"backbone.path: {spec.name} needs the folder of its weights, but none is given; "
            f"name one that holds {CONFIG_FILE}"
        )
    return known


def text_sizes(spec: BackboneSpec) -> TextSizes | None:
    """Return a text tower's sizes: its data file's, or those of the config in the folder of `path`.

    None where neither states them.
    """
    stated = card(spec.name).text
    if stated is not None or spec.path is None:
        return stated
    return text_sizes_of_config(Path(spec.path))


def weights_of(spec: BackboneSpec) -> Weights:
    """Return where a backbone's weights lie; never random ones unless the spec says so.

    Raises:
        UnknownName: no backbone of that name.
        NotReady: its weights are not found.
    """
    with readable(f"backbone {spec.name}"):
        return find(spec, card(spec.name), registry.data_file("backbones", spec.name))


def identity(spec: BackboneSpec) -> dict[str, Any]:
    """Return what decides a backbone's features, as JSON: plug-in, weights by content, settings.

    Raises:
        UnknownName: no backbone of that name.
        NotReady: its weights are missing, unreadable, or those of another architecture.
    """
    known, weights = known_sizes(spec), weights_of(spec)
    model, plugin = card(spec.name).model, registry.source("backbones", spec.name)
    with readable(f"backbone {spec.name}"):
        require_model(spec, weights)
        by_name = model if _models.builds_of_open_clip(plugin) else ""
        require_architecture(weights, known, by_name, _place(spec))
        tokenizer = tokenizer_of(weights, model)
        files = checksums(weights, tokenizer.files if tokenizer else [])
        for path in [] if weights.is_random else weights.files:
            require_shapes(path, stated_shapes(path), determined_shapes(known))
    plugin_identity = registry.identity("backbones", spec.name)
    return {
        "versions": plugin_identity.versions,
        "sources": plugin_identity.sources,
        "sizes": asdict(known),
        "stated": card(spec.name).deciding(),
        "preprocessing": spec.preprocessing,
        "files": files,
        **_keys(spec.name),
    }


def require_model(spec: BackboneSpec, weights: Weights) -> None:
    """Refuse weights, random ones too, of which nothing says what model to build.

    Raises:
        NotReady: there is no config beside them, and the data file names no known model.
    """
    plugin = registry.source("backbones", spec.name)
    _models.require_model(plugin, weights, card(spec.name).model, _place(spec))


def _place(spec: BackboneSpec) -> str:
    """Return where a backbone's sizes are stated, for messages."""
    return str(registry.data_file("backbones", spec.name) or f"backbone {spec.name}")


def text_identity(known: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the embeddings of prompts: the parts of an identity not about images."""
    return {key: known[key] for key in known.keys() - {"sizes", "preprocessing"}}


def _keys(name: str) -> dict[str, str]:
    """Return the digest of the list of weights beside a data file, if there is one."""
    data_file = registry.data_file("backbones", name)
    if data_file is None:
        return {}
    keys = data_file.with_name(f"{data_file.stem}_keys.json")
    return {"keys": remembered_sha256(keys)} if keys.exists() else {}


def require_text(spec: BackboneSpec) -> None:
    """Refuse a backbone without a text tower where it is to be compared with class names.

    Raises:
        NotReady: it has none.
    """
    if not card(spec.name).has_text:
        raise NotReady(
            f"backbone {spec.name}: must have a text tower to be scored against class names, but "
            "has none; use one that does, such as dinov3txt-l16, or read its features as a library"
        )


def require_tokenizer(spec: BackboneSpec) -> None:
    """Refuse a backbone whose text tower needs a tokenizer from elsewhere that is not there.

    Raises:
        NotReady: files of the tokenizer are missing, or the weights are.
    """
    known_sizes(spec)  # what else is wrong is told in one way
    with readable(f"backbone {spec.name}"):
        _tokenizers.require_tokenizer(weights_of(spec), card(spec.name).model)


def interpolation(spec: BackboneSpec) -> str:
    """Return how a backbone's own preprocessing resamples images: its config's way, else bicubic.

    Raises:
        NotReady: its weights are missing.
    """
    own = stated_preprocessing(weights_of(spec)).get("interpolation")
    return str(own or card(spec.name).interpolation)


def display_name(spec: BackboneSpec) -> str:
    """Return a backbone's name in tables: its path's, or its own."""
    name = Path(os.path.abspath(spec.path or spec.name))
    return name.stem if name.suffix in _FILE_ENDINGS else name.name


def has_random_weights(spec: BackboneSpec) -> bool:
    """Tell whether a backbone's weights are random, or were when they were exported.

    Raises:
        NotReady: what says so of a folder of exported weights cannot be read.
    """
    origin = exported_from(Path(spec.path)) if spec.path else None
    return "random" in (spec.weights, origin and origin.weights)


def _read(name: str, kind: type[T]) -> T:
    """Return what a backbone's data file says about sizes, or about where its weights come from.

    Raises:
        DataFileError: a key is not known, or a value makes no sense.
    """
    registry.plugin("backbones", name)  # an unknown name is reported first
    stated, place = registry.data("backbones", name), registry.data_file("backbones", name)
    known = {field.name for one in (Sizes, Card) for field in fields(one)}
    for key in sorted(stated.keys() - known):
        raise DataFileError(
            f"{place}: must have known keys, but has {key!r}; use {', '.join(sorted(known))}"
        )
    own = {field.name for field in fields(cast(Any, kind))}
    try:
        read: T = _ADAPTERS[kind].validate_python({k: v for k, v in stated.items() if k in own})
        return read
    except ValidationError as error:
        raise data_file_error(error, str(place)) from error
