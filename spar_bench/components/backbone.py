"""What a spec's backbone stands for: sizes, card, weights, identity; without torch."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError

from spar_bench import registry
from spar_bench.components.fits import determined_shapes, require_fit, require_model
from spar_bench.components.header import Shape
from spar_bench.components.identity import ComponentIdentity, identify
from spar_bench.components.open_clip_config import (
    model_config,
    require_tokenizer,
    sizes_of_config,
    stated_preprocessing,
    text_sizes_of_config,
    tokenizer_of,
)
from spar_bench.components.sizes import Sizes, TextSizes
from spar_bench.components.weights import (
    CONFIG_FILE,
    WEIGHTS_ENDINGS,
    BackboneCard,
    Wanted,
    Weights,
    checksums,
    describe_read_error,
    find,
    readable,
)
from spar_bench.digests import remembered_sha256
from spar_bench.errors import DataFileError, NotReady, SpecError
from spar_bench.sources import constant
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stage import digest
from spar_bench.suggest import suggest
from spar_bench.validation import data_file_error

ORIGIN_FILE = "spar_bench.json"
"""The file beside exported weights that says what they were made from."""
_PATH = "backbone.path"
T = TypeVar("T")


def card(name: str) -> BackboneCard:
    """Return where a backbone's weights come from, from its data file; empty where it has none.

    Raises:
        UnknownName: no backbone of that name.
        DataFileError: the data file has a key that is not known, or a value that makes no sense.
    """
    return read_data("backbones", name, BackboneCard, others=[Sizes])


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
    keys = {"position_embedding", "odd_sides", "read_out", "token_budget"}
    return replace(known, **spec.model_dump(include=keys, exclude_none=True))


def stated_sizes(spec: BackboneSpec) -> Sizes | None:
    """Return the sizes of a backbone's data file or config, without the spec's settings.

    None where neither states them; raises UnknownName and NotReady as `sizes` does.
    """
    registry.plugin("backbones", spec.name)  # an unknown name is reported first
    if not registry.data("backbones", spec.name):
        return None if spec.path is None else sizes_of_config(Path(spec.path))
    known = read_data("backbones", spec.name, Sizes, others=[BackboneCard])
    read_outs = registry.names("read_outs")
    for read_out in (known.read_out, *card(spec.name).read_outs):
        if read_out not in read_outs:
            raise DataFileError(
                f"{_place(spec)}: read_out: must be a known name, but got {read_out!r}; "
                f"{suggest(read_out, read_outs)}"
            )
        if not known.head_depth and constant(registry.source("read_outs", read_out), "NEEDS_HEAD"):
            raise DataFileError(
                f"{_place(spec)}: head_depth: must be the number of blocks in the head that "
                f"{read_out} reads, but is left out; add it"
            )
    return known


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
    wanted = Wanted(
        f"backbone {spec.name}",
        _PATH,
        spec.name,
        spec.path,
        card(spec.name),
        registry.data_file("backbones", spec.name),
        is_random=spec.weights == "random",
    )
    with readable(wanted.what):
        return find(wanted)


def identity(spec: BackboneSpec) -> ComponentIdentity:
    """Return what decides a backbone's features: plug-in, weights by content, settings.

    Raises:
        UnknownName: no backbone of that name.
        NotReady: its weights are missing, unreadable, or those of another architecture.
    """
    known, weights, stated = known_sizes(spec), weights_of(spec), card(spec.name)
    with readable(f"backbone {spec.name}"):
        plugin = registry.source("backbones", spec.name)
        require_fit(plugin, weights, known, stated.model, _place(spec))
        tokenizer = tokenizer_of(weights, stated.model)
        files = checksums(weights, tokenizer.files if tokenizer else [], key=_PATH)
        settings: dict[str, JsonValue] = {
            "sizes": asdict(known),
            "model": stated.model,
            "mean": list(stated.mean or ()),
            "std": list(stated.std or ()),
            "preprocessing": spec.preprocessing,
            **_keys(spec.name),
        }
        return identify("backbones", spec.name, settings=settings, files=files)


def architecture(spec: BackboneSpec) -> str:
    """Return a digest of the config that a backbone is built from; without one, its model's name.

    Raises:
        UnknownName: no backbone of that name.
        NotReady: its weights are missing, or their config cannot be read.
    """
    model = card(spec.name).model
    with readable(f"backbone {spec.name}"):
        config = model_config(weights_of(spec), model)
    return digest(config) if config else model


def text_identity(known: ComponentIdentity) -> ComponentIdentity:
    """Return what decides the embeddings of prompts: the parts of an identity not about images."""
    about_text = known.settings.keys() - {"sizes", "preprocessing"}
    return known.model_copy(update={"settings": {key: known.settings[key] for key in about_text}})


def require_known_model(spec: BackboneSpec, weights: Weights) -> None:
    """Refuse weights, random ones too, of which nothing says what model to build.

    Raises:
        NotReady: there is no config beside them, and the data file names no known model.
    """
    plugin = registry.source("backbones", spec.name)
    require_model(plugin, weights, card(spec.name).model, _place(spec))


def shapes_of(spec: BackboneSpec) -> dict[str, Shape]:
    """Return the shapes of tensors that a backbone's sizes determine, by name in its files."""
    return determined_shapes(registry.source("backbones", spec.name), known_sizes(spec))


def _place(spec: BackboneSpec) -> str:
    """Return where a backbone's sizes are stated, for messages."""
    return str(registry.data_file("backbones", spec.name) or f"backbone {spec.name}")


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


def require_backbone_tokenizer(spec: BackboneSpec) -> None:
    """Refuse a backbone whose text tower needs a tokenizer from elsewhere that is not there.

    Raises:
        NotReady: files of the tokenizer are missing, or the weights are.
    """
    known_sizes(spec)  # what else is wrong is told in one way
    with readable(f"backbone {spec.name}"):
        require_tokenizer(weights_of(spec), card(spec.name).model)


def interpolation_of(spec: BackboneSpec) -> str:
    """Return how a backbone's own preprocessing resamples images: its config's way, else bicubic.

    Raises:
        NotReady: its weights are missing.
    """
    own = stated_preprocessing(weights_of(spec)).get("interpolation")
    return str(own or card(spec.name).interpolation)


def display_name(spec: BackboneSpec) -> str:
    """Return a backbone's name in tables: its path's, or its own."""
    name = Path(os.path.abspath(spec.path or spec.name))
    return name.stem if name.suffix in {*WEIGHTS_ENDINGS, ".yaml", ".yml", ".py"} else name.name


def has_random_weights(spec: BackboneSpec) -> bool:
    """Return whether a backbone's weights are random, or were when they were exported.

    Raises:
        NotReady: the file that states the origin of exported weights cannot be read.
    """
    origin = exported_from(Path(spec.path)) if spec.path else None
    return "random" in (spec.weights, origin and origin.weights)


def exported_from(path: Path) -> BackboneSpec | None:
    """Return the backbone that exported weights were made from, given their folder or file.

    None where nothing says that they were exported.

    Raises:
        NotReady: what says so cannot be read.
    """
    path = (path if path.is_dir() else path.parent) / ORIGIN_FILE
    try:
        return BackboneSpec(**json.loads(path.read_text(encoding="utf-8"))["backbone"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise NotReady(
            f"{path}: must say what the weights beside it were exported from, but "
            f"{describe_read_error(error)}; export them again"
        ) from error


def read_data(family: str, name: str, kind: type[T], *, others: Sequence[type] = ()) -> T:
    """Return one kind of fact that a component's data file states; `others` have further keys.

    Raises:
        DataFileError: a key is not known, or a value makes no sense.
    """
    registry.plugin(family, name)  # an unknown name is reported first
    stated, place = registry.data(family, name), registry.data_file(family, name)
    own: dict[type, set[str]] = {one: _names(one) for one in (kind, *others)}
    known = set().union(*own.values())
    for key in sorted(stated.keys() - known):
        raise DataFileError(
            f"{place}: must have known keys, but has {key!r}; use {', '.join(sorted(known))}"
        )
    try:
        read: T = _adapter(kind).validate_python(
            {key: value for key, value in stated.items() if key in own[kind]}
        )
        return read
    except ValidationError as error:
        raise data_file_error(error, str(place)) from error


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def _names(kind: Any) -> set[str]:
    return {field.name for field in fields(kind)}
