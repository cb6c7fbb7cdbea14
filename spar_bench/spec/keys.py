"""Dotted keys: which ones exist, and how to set their values."""

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from spar_bench.near import did_you_mean, nearest
from spar_bench.spec.schema import Settings, Spec
from spar_bench.spec.values import Part


def _fields(model: type[Part], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if (part := _part(field)) is not None:
            yield from _fields(part, f"{prefix}{name}.")


def _part(field: FieldInfo) -> type[Part] | None:
    found: Any = field.annotation
    return found if isinstance(found, type) and issubclass(found, Part) else None


FIELDS: dict[str, FieldInfo] = dict(_fields(Settings))
"""Every key that can be swept, including parts such as `backbone`."""
PARTS: dict[str, type[Part]] = {
    key: part for key, field in FIELDS.items() if (part := _part(field)) is not None
}


def leaves(key: str) -> list[str]:
    """Return the keys under a part that hold values; for a key with a value, itself."""
    if key not in PARTS:
        return [key]
    return [name for name in FIELDS if name.startswith(f"{key}.") and name not in PARTS]


def suggestion(key: str) -> str:
    """Return the end of an error's line on an unknown dotted key."""
    if key in set(Spec.model_fields) - set(Settings.model_fields):
        return "it belongs only at the top of a file, the same for every trial"
    meant = meant_by(key)
    return did_you_mean(*meant) if meant else "`spar-bench init` shows them all"


def meant_by(key: str) -> list[str]:
    """Return the keys that an unknown dotted key may stand for, at most three.

    Its last part alone is looked up everywhere.
    """
    last = key.rpartition(".")[2]
    fits = [name for name in FIELDS if name.rpartition(".")[2] == last]
    if fits:
        return fits[:3]
    near = nearest(key, FIELDS)
    lasts = get_close_matches(last, {name.rpartition(".")[2] for name in FIELDS}, n=1, cutoff=0.75)
    if near is None and lasts:
        return meant_by(lasts[0])
    return [] if near is None else [near]


def named(raw: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Expand shorthands: `{backbone: patchwork}` to `{backbone: {name: patchwork}}`."""
    return {
        name: (
            {"name": value}
            if prefix + name in PARTS and isinstance(value, str)
            else named(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else value
        )
        for name, value in raw.items()
    }


def put(raw: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a copy of nested dicts with the value under a dotted key, shorthands expanded."""
    if key in PARTS and isinstance(value, str):
        value = {"name": value}
    first, _, rest = key.partition(".")
    if rest:
        inner = raw.get(first)
        value = put(inner if isinstance(inner, dict) else {}, rest, value)
    return {**raw, first: value}


def look_up(settings: BaseModel, key: str) -> Any:
    """Return the value under a dotted key of validated settings."""
    found: Any = settings
    for name in key.split("."):
        found = getattr(found, name)
    return found


def raw_value(raw: dict[str, Any], key: str) -> Any:
    """Return the value under a dotted key of nested dicts, or its default."""
    found: Any = raw
    for name in key.split("."):
        if not isinstance(found, dict) or name not in found:
            return look_up(Settings(), key)
        found = found[name]
    return found


@cache
def adapter(key: str) -> TypeAdapter[Any]:
    """Return the validator for the value under one key."""
    field = FIELDS[key]
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    return TypeAdapter(annotation)
