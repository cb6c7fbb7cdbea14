"""Dotted keys: which ones exist, and how to set their values."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import Settings, Spec
from spar_bench.suggest import did_you_mean, nearest, suggest
from spar_bench.validation import Part, Raw


def _fields(model: type[Part], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if (part := _part(field)) is not None:
            yield from _fields(part, f"{prefix}{name}.")


def _part(field: FieldInfo) -> type[Part] | None:
    part: Any = field.annotation
    return part if isinstance(part, type) and issubclass(part, Part) else None


FIELDS: dict[str, FieldInfo] = dict(_fields(Settings))
"""Every key that can be swept, including parts such as `backbone`."""
PARTS: dict[str, type[Part]] = {
    key: part for key, field in FIELDS.items() if (part := _part(field)) is not None
}


PLUGINS = {"student.loss": "losses", "evaluate.refiner": "refiners"}
"""The keys of plug-ins that have settings, each a further key under them; and their families."""


def is_key(key: str) -> bool:
    """Return whether a dotted key can be swept; which settings a plug-in has is checked later."""
    plugin, _, setting = key.rpartition(".")
    return key in FIELDS or (plugin in PLUGINS and setting not in ("", "name"))


def leaves(key: str, written: Iterable[str]) -> list[str]:
    """Return the keys under a part that hold values; for a key with a value, itself.

    The settings of plug-ins are those of the dotted keys `written`.
    """
    found = [key]
    if key in PARTS:
        found = [name for name in FIELDS if name.startswith(f"{key}.") and name not in PARTS]
    return [*found, *(one for one in written if one.rpartition(".")[0] in {*found} & {*PLUGINS})]


def written_settings(raws: Iterable[Raw]) -> list[str]:
    """Return the dotted keys of the plug-ins' settings that nested dicts write out."""
    written = dict[str, None]()
    for raw in raws:
        for plugin in PLUGINS:
            value = raw_value(raw, plugin)
            names = value if isinstance(value, dict) else ()
            written |= dict.fromkeys(f"{plugin}.{name}" for name in names if name != "name")
    return list(written)


def suggest_key(key: str) -> str:
    """Return the end of an error's line on an unknown dotted key."""
    if key in set(Spec.model_fields) - set(Settings.model_fields):
        return "it belongs only at the top of a file, the same for every trial"
    meant = meant_by(key)
    return did_you_mean(*meant) if meant else "`spar-bench init` shows them all"


def suggest_sibling(key: str, siblings: list[str]) -> str:
    """Return the end of an error's line on an unknown key of a part: a sibling, else another's."""
    elsewhere = meant_by(key) if nearest(key, siblings) is None else []
    return did_you_mean(*elsewhere) if elsewhere else suggest(key, siblings)


def meant_by(key: str) -> list[str]:
    """Return the keys that an unknown dotted key may stand for, at most three.

    Its last part alone is looked up everywhere.
    """
    last = key.rpartition(".")[2]
    fits = [name for name in FIELDS if name.rpartition(".")[2] == last]
    if fits:
        return fits[:3]
    closest = nearest(key, FIELDS)
    lasts = get_close_matches(last, {name.rpartition(".")[2] for name in FIELDS}, n=1, cutoff=0.75)
    if closest is None and lasts:
        return meant_by(lasts[0])
    return [] if closest is None else [closest]


def put(raw: Raw, key: str, value: Any, part: str = "") -> Raw:
    """Return a copy of nested dicts with the value under a dotted key of a part.

    A part that is no mapping stays, for the schema to refuse.
    """
    first, _, rest = key.partition(".")
    whole = f"{part}{first}"
    if rest:
        inner = written_out(whole, raw.get(first, {}))
        if not isinstance(inner, dict):
            return raw
        value = put(inner, rest, value, f"{whole}.")
    return {**raw, first: value}


def written_out(key: str, value: Any) -> Any:
    """Expand the shorthand of a part that has a name: `patchwork` to `{name: patchwork}`."""
    has_name = key in PLUGINS or (key in PARTS and "name" in PARTS[key].model_fields)
    return {"name": value} if isinstance(value, str) and has_name else value


def look_up(settings: BaseModel, key: str) -> Any:
    """Return the value under a dotted key of validated settings: for a plug-in, its name.

    A setting that the plug-in does not have is None.
    """
    value: Any = settings
    for name in key.split("."):
        if isinstance(value, PluginSpec):
            return value.settings.get(name)
        value = getattr(value, name)
    return value.name if isinstance(value, PluginSpec) else value


def raw_value(raw: Raw, key: str) -> Any:
    """Return the value under a dotted key of nested dicts, or its default."""
    value: Any = raw
    part = ""
    for name in key.split("."):
        value = written_out(part, value)
        if not isinstance(value, dict) or name not in value:
            return _default(key)
        value, part = value[name], f"{part}.{name}".lstrip(".")
    return value


@cache
def _default(key: str) -> Any:
    """Return what a key has where a file leaves it out; not to be modified."""
    return look_up(Settings(), key)


def read_value(key: str, value: Any) -> Any:
    """Return a plain value as the schema reads it (64.0 as 64), or unchanged if it is invalid."""
    value = written_out(key, value)
    with suppress(ValueError, KeyError):  # no adapter for a setting of a plug-in
        return adapter(key).validate_python(value)
    return value


def comparable(key: str, value: Any) -> str:
    """Return a plain value as text that equal values share."""
    return repr(read_value(key, value))


@cache
def adapter(key: str) -> TypeAdapter[Any]:
    """Return the validator for the value under one key."""
    field = FIELDS[key]
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    return TypeAdapter(annotation)
