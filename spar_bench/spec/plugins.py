"""Plug-ins in a spec: a name or path alone, or with the plug-in's own settings."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import GenericAlias
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FiniteFloat,
    JsonValue,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails

from spar_bench import registry
from spar_bench.errors import SparBenchError
from spar_bench.suggest import suggest
from spar_bench.validation import MISTAKE, Raw, mistake, show
from spar_bench.values import not_bool, path_text

FAMILIES = ("backbones", "datasets", "losses", "read_outs", "refiners", "stages")
"""The families whose plug-ins a spec names."""
_BY_NAME_ALONE = ("stages",)
"""The families whose plug-ins are found by name even where there is no spec."""
_SHOWN_BY_STEM = ("backbones", "losses", "refiners")
"""The families of which tables show a file's stem alone; data sets have labels."""
_SHOWN = {"stages": "probes"}
"""What a spec calls a family, if not by its name."""
_KINDS: dict[Hashable, Any] = {
    bool: bool,
    int: Annotated[int, BeforeValidator(not_bool)],
    float: Annotated[FiniteFloat, BeforeValidator(not_bool)],
    str: str,
}


@dataclass(frozen=True)
class Known:
    """The names that a spec may use, by family, and the files that one names, by display name."""

    names: Mapping[str, list[str]]
    files: dict[tuple[str, str], str] = field(default_factory=dict)


def known_plugins() -> Known:
    """Return the context in which one spec is validated."""
    return Known({family: registry.names(family) for family in FAMILIES})


class PluginSpec(BaseModel):
    """A plug-in, and its settings as further keys."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _of_its_name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The settings by name: all that the plug-in has, if a spec was checked."""
        return dict(self.model_extra or {})

    @model_serializer(mode="wrap")
    def _as_its_name_alone(self, write: SerializerFunctionWrapHandler) -> Any:
        return write(self) if self.model_extra else self.name


def plugin_name(family: str) -> AfterValidator:
    """Accept a name that the context, a `Known`, has, or a path; without a context, any name."""

    def check(name: str, info: ValidationInfo) -> str:
        if info.context:
            _require(family, name, info.context)
        return name

    return AfterValidator(check)


def registered_name(family: str) -> AfterValidator:
    """Accept a name that the context, a `Known`, has; without a context, any name."""

    def check(name: str, info: ValidationInfo) -> str:
        if info.context and name not in info.context.names[family]:
            way_out = suggest(name, info.context.names[family])
            raise mistake(f"must be a known name, but got {show(name)}; {way_out}")
        return name

    return AfterValidator(check)


def plugin(family: str, default: str) -> BeforeValidator:
    """Read `huber` as `{name: huber}`, check its settings, and fill in what is left out.

    Without a context, any name and settings are accepted.
    """

    def check(value: Any, info: ValidationInfo) -> Any:
        given = {"name": value} if isinstance(value, str) else value
        name = given.get("name", default) if isinstance(given, dict) else None
        if not info.context or not isinstance(name, str):
            return given  # the schema says what is wrong
        _require(family, name, info.context, *() if isinstance(value, str) else ("name",))
        return {"name": name, **_settings(name, given, registry.parameters(family, name))}

    return BeforeValidator(check, json_schema_input_type=str | PluginSpec)


def named_once(plugins: list[PluginSpec]) -> list[PluginSpec]:
    """Refuse a list that names a plug-in twice: its numbers go by the name.

    Raises:
        PydanticCustomError: it does.
    """
    names = [one.name for one in plugins]
    for name in names:
        if names.count(name) > 1:
            raise mistake(f"must name each once, but got {show(name)} again; sweep its settings")
    return plugins


def _require(family: str, name: str, known: Known, *keys: str) -> None:
    """Refuse a name that no plug-in has, and a module that is not one's; `keys` as `mistake`."""
    names = known.names[family]
    if registry.is_path(name) and family not in _BY_NAME_ALONE:
        path_text(name)
        if (other := _namesake(family, name, known)) is not None:
            text = f"must be shown by a name of its own, but got {show(name)} beside {show(other)}"
            raise mistake(f"{text}, which tables show alike; rename one", *keys)
    elif name not in names:
        is_folder = "/" in name and family in ("backbones", "datasets")
        way_out = f"write {{path: {name}}}" if is_folder else suggest(name, names)
        raise mistake(
            f"must be one of the {_SHOWN.get(family, family)}, but got {show(name)}; {way_out}",
            *keys,
        )
    try:
        if not registry.is_data_file(name):
            registry.require_stated(family, name)
            registry.parameters(family, name)
    except SparBenchError as error:
        raise mistake(str(error), *keys) from error


def _namesake(family: str, path: str, known: Known) -> str | None:
    """Return the plug-in or other file that tables show by the same name as a file, if any."""
    shown = registry.display_name(path)
    if family not in _SHOWN_BY_STEM:
        return None
    if shown in known.names[family]:
        return shown
    first = known.files.setdefault((family, shown), path)
    return None if first == path else first


def _settings(name: str, given: Raw, defaults: Raw) -> Raw:
    """Return every setting of a plug-in, given or not.

    Raises:
        ValidationError: some are unknown or of the wrong kind.
    """
    errors, settings = list(_unknown(name, given, defaults)), Raw()
    for key, default in defaults.items():
        try:
            settings[key] = _kind(default).validate_python(given.get(key, default))
        except ValidationError as error:
            errors += [
                InitErrorDetails(
                    type=mistake(one["ctx"]["text"]) if one["type"] == MISTAKE else one["type"],
                    loc=(key, *one["loc"]),
                    input=one["input"],
                    ctx=one.get("ctx", {}),
                )
                for one in error.errors(include_url=False)
            ]
    if errors:
        raise ValidationError.from_exception_data(name, errors)
    return settings


def _unknown(name: str, given: Iterable[str], known: Iterable[str]) -> Iterator[InitErrorDetails]:
    """Yield an error for each setting that a plug-in does not have."""
    for key in given:
        if key != "name" and key not in known:
            way_out = suggest(key, known) if known else "it has none"
            text = f"must be a setting of {name}, but got {show(key)}; {way_out}"
            yield InitErrorDetails(type=mistake(text), loc=(key,), input=key)


def _kind(default: Any) -> TypeAdapter[Any]:
    """Return the validator of a setting with this default."""
    own: Any = type(default)
    if own not in (list, tuple):
        return _adapter(own, in_list=False)
    kinds: set[Any] = {type(item) for item in default}
    kind = float if kinds == {int, float} else kinds.pop() if len(kinds) == 1 else None
    return _adapter(kind, in_list=True)


@cache
def _adapter(kind: Hashable, *, in_list: bool) -> TypeAdapter[Any]:
    annotation: Any = _KINDS.get(kind, Any)
    if in_list:
        annotation = GenericAlias(list, (annotation,))
    return TypeAdapter(annotation)
