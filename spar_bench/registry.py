"""Find plug-ins by name or path without importing them: names, versions, settings, sources.

A family is a folder of the package (`losses/`, `backbones/`, `datasets/`, ...), one module
per plug-in except `base` and `_*`, and the entry point group of the same name (`spar_bench.losses`,
...), whose entries name modules of other distributions. A user's own module is named by its path
(`my/pearson.py`). `NAME.yaml` beside a module is the data file of a name: facts for the plug-in
and, if no module has that name, the name of the plug-in (`plugin: siglip2`). A user's own data file
is named by its path, too.

A module states, as literals at its top level, which are read without running it:

    VERSION = 1              required; its author increases it when the plug-in's numbers change
    BUILDS_ON = "openclip"   the plug-ins of its family whose code it uses: a name, or a tuple
    NEEDS_DATA_FILE = True   its own name is none that a spec may use: those of data files are
    MODELS_OF = "open_clip"  the library that builds a backbone by the `model` of a data file
    BY_NAME_ALONE = True     and it never builds one from a config beside the weights
    SHAPES = {...}           of a backbone's tensors by name, in terms of its sizes
    FLOPS = "2 * h * w * C"  of a refiner, in terms of sizes and settings (`refiners/base.py`)
    NEEDS_FEATURES = True    of a refiner that cannot do with scores alone
    TENSORS = "x_keys.json"  of a refiner: lists the weights that it reads (`components/fits.py`)

and defines one object under the family's attribute (`loss`, `Backbone`, `Dataset`, `Refiner`). The
settings of a loss or refiner are the keyword-only parameters of that function, or of that class's
`__init__`; those of a kind of stage that a spec may ask for are those of its class's `probing`
(`stages/base.py`). Their defaults are literals.
"""

import ast
import importlib
import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from spar_bench import sources
from spar_bench.errors import DataFileError, SparBenchError, UnknownName
from spar_bench.families import FAMILIES
from spar_bench.modules import digests, module_file, module_name
from spar_bench.sources import constant, parsed, read_data_file

_KINDS = (bool, int, float, str)
_PACKAGE = Path(__file__).parent


class PluginIdentity(BaseModel):
    """What decides a plug-in's numbers: part of the fingerprint of everything made with it.

    `versions` has the plug-in and all that it builds on, by name; `sources` the SHA-256 of each
    file of theirs outside this package, which no release ties to a version; `settings` all
    settings, whether a spec gives them or not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    versions: dict[str, int]
    sources: dict[str, str] = {}
    settings: dict[str, Any] = {}


@cache
def modules(family: str) -> dict[str, str]:
    """Map each plug-in name of a family to the dotted name of its module, built-in ones first.

    Raises:
        SparBenchError: two plug-ins have one name.
    """
    found = {
        path.stem: f"spar_bench.{family}.{path.stem}"
        for path in sorted((_PACKAGE / family).glob("*.py"))
        if path.stem != "base" and not path.stem.startswith("_")
    }
    entries = _entry_points().select(group=f"spar_bench.{family}")
    for entry in sorted(entries, key=lambda entry: (entry.name, entry.value)):
        if entry.name in found:
            raise SparBenchError(
                f"entry point spar_bench.{family}: {entry.name!r} is taken by {found[entry.name]}, "
                f"but {entry.value} claims it too; rename one, or uninstall its package"
            )
        found[entry.name] = entry.module
    return found


def names(family: str) -> list[str]:
    """Return the sorted names of a family that a spec may use; imports no plug-in."""
    known = modules(family)
    alone = {name for name in known if _has_a_name_of_its_own(family, name)}
    return sorted(alone | _data_files(family).keys())


def is_data_file(name: str) -> bool:
    """Return whether a name is the path of a user's own data file."""
    return name.endswith((".yaml", ".yml"))


def is_path(name: str) -> bool:
    """Return whether a name is the path of a user's own module or data file."""
    return is_data_file(name) or _is_module(name)


def display_name(name: str) -> str:
    """Return what tables call a plug-in: its name, or the stem of its file."""
    return Path(name).stem if is_path(name) else name


def data_file(family: str, name: str) -> Path | None:
    """Return the data file of a name, or None where it has none.

    For a plug-in outside this package, it is beside its module.
    """
    if is_data_file(name):
        return Path(os.path.expanduser(name))
    if _is_module(name) or (name in modules(family) and name not in _data_files(family)):
        beside = _file(family, name).with_suffix(".yaml")
        return beside if beside.is_file() else None
    return _data_files(family).get(name)


def data(family: str, name: str) -> dict[str, Any]:
    """Return what the data file of a name states, except the plug-in; nothing without a file.

    Raises:
        DataFileError: the file cannot be read, or is not a map of keys to values.
    """
    path = data_file(family, name)
    return {} if path is None else {k: v for k, v in read_data_file(path).items() if k != "plugin"}


def plugin(family: str, name: str) -> str:
    """Return the plug-in that serves a name: that of the same name or path, or its data file's.

    Raises:
        UnknownName: nothing has that name.
        DataFileError: its data file cannot be read, or names no plug-in.
    """
    known = modules(family)
    if name in known or _is_module(name):
        return name
    path = data_file(family, name)
    if path is None:
        if "/" in name and family in ("backbones", "datasets"):
            raise UnknownName(
                f"{FAMILIES[family].noun}: must be a known name, but got {name!r}; give a name, "
                "and a folder as its path"
            )
        raise UnknownName.among(FAMILIES[family].noun, name, names(family))
    stated = read_data_file(path).get("plugin")
    if not isinstance(stated, str) or stated not in known:
        raise DataFileError(
            f"{path}: plugin: must name one of {', '.join(sorted(known))}, but got {stated!r}; "
            "correct it"
        )
    return stated


def source(family: str, name: str) -> Path:
    """Return the file of the module that serves a name, found without running it.

    Raises:
        UnknownName: nothing has that name.
        SparBenchError: its module is not where its entry point says.
    """
    return _file(family, plugin(family, name))


def version(family: str, name: str) -> int:
    """Return a plug-in's `VERSION`, read from its source without running it.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: its module states no `VERSION`, or cannot be read.
    """
    path = source(family, name)
    value = constant(path, "VERSION")
    if type(value) is not int:
        raise SparBenchError(
            f"{path}: a plug-in must state VERSION = <integer>, but has none; add VERSION = 1"
        )
    return value


def parameters(family: str, name: str) -> dict[str, Any]:
    """Map the settings that a spec may give a plug-in to their defaults, read without running it.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: a keyword-only parameter has no literal default.
    """
    path, found = source(family, name), dict[str, Any]()
    for parameter, default in (_stated_settings(family, path) or {}).items():
        value = None if default is None else sources.literal(default)
        items = value if isinstance(value, list | tuple) else [value]
        if any(type(item) not in _KINDS for item in items) or parameter == "name":
            raise SparBenchError(
                f"{path}: a setting must have a literal number, text, True, False or list as its "
                f"default, and not be called name, but {parameter!r} breaks this; correct it"
            )
        found[parameter] = value
    return found


def identity(family: str, name: str, settings: Mapping[str, Any] | None = None) -> PluginIdentity:
    """Return what decides the numbers of the plug-in that serves a name, with its settings.

    Raises:
        UnknownName: no plug-in of that name, or of one that it builds on.
        SparBenchError: a module states no `VERSION`, or cannot be read.
    """
    lineage, outside = dict[str, int](), dict[str, str]()
    open_ends = [plugin(family, name)]
    while open_ends:
        base = open_ends.pop(0)
        shown = Path(base).name
        if shown in lineage:
            continue
        path = _file(family, base)
        lineage[shown] = version(family, base)
        if not path.is_relative_to(_PACKAGE):
            outside |= _sources(family, base)
        open_ends += [plugin(family, one) for one in _builds_on(path)]
    given = {key: _as_json(value) for key, value in parameters(family, name).items()}
    return PluginIdentity(
        name=display_name(plugin(family, name)),
        versions=lineage,
        sources=outside,
        settings=given | dict(settings or {}),
    )


def purpose(family: str, name: str) -> str:
    """Return the first line of a plug-in's docstring, read without running it."""
    return docstring(family, name).partition("\n")[0]


def docstring(family: str, name: str) -> str:
    """Return a plug-in's docstring, read without running it."""
    return ast.get_docstring(parsed(source(family, name))) or ""


def require_stated(family: str, name: str) -> None:
    """Refuse a plug-in whose module is not as it must be, as far as its text shows.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: it cannot be read, states no `VERSION`, or lacks its object.
    """
    identity(family, name)
    path, attribute = source(family, name), FAMILIES[family].attribute
    if not sources.defines(path, attribute):
        raise _lacks(family, path)


def require(family: str, name: str) -> None:
    """Refuse a plug-in that a sweep could not use; those of this package are not imported.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: it states no `VERSION`, cannot be imported, or lacks its object.
    """
    identity(family, name)
    if not source(family, name).is_relative_to(_PACKAGE):
        load(family, name)


def load(family: str, name: str) -> Any:
    """Import a plug-in and return its object.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: its module cannot be imported, lacks the family's attribute, or has changed
            since this process imported it.
    """
    path = source(family, name)
    try:
        module = importlib.import_module(_importable(family, plugin(family, name)))
    except Exception as error:  # a plug-in may raise anything
        reason = " ".join(str(error).split())
        raise SparBenchError(
            f"{path}: a {FAMILIES[family].noun} must be importable, but got "
            f"{type(error).__name__}: {reason}; fix it, or install what it needs"
        ) from error
    if not path.is_relative_to(_PACKAGE) and sources.sha256(path) != _imported.setdefault(
        module.__name__, sources.sha256(path)
    ):
        raise SparBenchError(
            f"{path}: a {FAMILIES[family].noun} must stay as it is while a process uses it, but "
            "has changed since it was imported; start anew"
        )
    if not hasattr(module, FAMILIES[family].attribute):
        raise _lacks(family, path)
    return getattr(module, FAMILIES[family].attribute)


def configured(family: str, name: str, settings: Mapping[str, Any]) -> Callable[..., Any]:
    """Import a plug-in and return its function or class with its settings put in.

    Raises:
        UnknownName, SparBenchError: as `load`.
    """
    return partial(load(family, name), **as_stated(family, name, settings))


def as_stated(family: str, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a plug-in's defaults are: lists are tuples where a default is one."""
    tuples = {key for key, value in parameters(family, name).items() if isinstance(value, tuple)}
    return {key: tuple(value) if key in tuples else value for key, value in settings.items()}


_imported: dict[str, str] = {}
"""The SHA-256 that the file of each plug-in outside this package had when it was imported."""


def _importable(family: str, name: str) -> str:
    """Return the dotted name under which a plug-in's module can be imported."""
    return module_name(_file(family, name)) if _is_module(name) else modules(family)[name]


def _lacks(family: str, path: Path) -> SparBenchError:
    attribute, noun, _ = FAMILIES[family]
    return SparBenchError(f"{path}: a {noun} must define {attribute!r}, but has none; add it")


@cache
def _entry_points() -> Any:  # SelectableGroups in Python 3.11, EntryPoints since
    """Return those of all distributions, which take a hundredth of a second to look through."""
    return entry_points()


@cache
def _data_files(family: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((_PACKAGE / family).glob("*.yaml"))}


def _is_module(name: str) -> bool:
    return name.endswith(".py")


def _stated_settings(family: str, path: Path) -> dict[str, ast.expr | None] | None:
    """Return a module's settings with their defaults; None if it has nowhere to state any."""
    attribute, _, method = FAMILIES[family]
    return sources.keyword_only(path, attribute, method) if method else None


def _has_a_name_of_its_own(family: str, name: str) -> bool:
    """Return whether a spec may name a module; unreadable ones are listed, so users see them.

    It may not if the module needs a data file, or is a kind of stage that is no probe.
    """
    try:
        path = _file(family, name)
        # Few say so, and to parse every plug-in of a family takes as long as to import pydantic.
        text = path.read_bytes()
        if family == "stages":
            return b"def probing" in text and _stated_settings(family, path) is not None
        return b"NEEDS_DATA_FILE" not in text or not constant(path, "NEEDS_DATA_FILE")
    except (SparBenchError, OSError):
        return True


def _file(family: str, name: str) -> Path:
    """Return the file of a plug-in's module."""
    if _is_module(name):
        return Path(os.path.expanduser(name))
    dotted = modules(family)[name]
    path = module_file(dotted)
    if path is None or not path.is_file():
        raise SparBenchError(
            f"{FAMILIES[family].noun} {name!r}: must be installed, but there is no module "
            f"{dotted}; reinstall its package"
        )
    return path


def _sources(family: str, name: str) -> dict[str, str]:
    """Return the SHA-256 of a plug-in's file and of those of its own package that it imports."""
    path = _file(family, name)
    return {path.name: sources.sha256(path)} if _is_module(name) else digests(modules(family)[name])


def _builds_on(path: Path) -> tuple[str, ...]:
    """Return the plug-ins whose code a module says it uses.

    Raises:
        SparBenchError: it says so otherwise than by names.
    """
    stated = constant(path, "BUILDS_ON") or ()
    found = (stated,) if isinstance(stated, str) else stated
    if not isinstance(found, tuple | list) or not all(isinstance(one, str) for one in found):
        raise SparBenchError(
            f"{path}: BUILDS_ON must be a name, or a tuple of names, but got {stated!r}; correct it"
        )
    return tuple(found)


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
