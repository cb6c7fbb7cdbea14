"""Find plug-ins by name without importing them: a name is a file's name or an entry point's.

`NAME.yaml` beside the modules is the data file of a name: facts for the plug-in and, if no module
has that name, the name of the plug-in (`plugin: siglip2`). A user's own data file is named by its
path. A module that needs a data file sets `NEEDS_DATA_FILE = True`.

A family is a folder of the package (`losses/`, `backbones/`, `datasets/`, `refiners/`), one module
per plug-in except `base` and `_*`, and the entry point group of the same name (`spar_bench.losses`,
...), whose entries name modules of other distributions. The module holds one object under the
family's attribute (`loss`, `Backbone`, `Dataset`, `Refiner`) and `VERSION`, an integer that its
author increases when its numbers change: it is part of the fingerprint of everything it makes.
"""

import ast
import importlib
import importlib.util
import os
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from spar_bench.errors import DataFileError, SparBenchError, UnknownName
from spar_bench.sources import constant, parsed, read_data_file

ATTRIBUTES = {
    "backbones": "Backbone",
    "datasets": "Dataset",
    "losses": "loss",
    "refiners": "Refiner",
    "stages": "Stage",
    "backends": "Backend",
}
_ONE_OF = {
    "backbones": "backbone",
    "datasets": "data set",
    "losses": "loss",
    "refiners": "refiner",
    "stages": "kind of stage",
    "backends": "backend",
}


@cache
def modules(family: str) -> dict[str, str]:
    """Map each plug-in name of a family to the dotted name of its module, built-in ones first.

    Raises:
        SparBenchError: two plug-ins have one name.
    """
    folder = Path(__file__).parent / family
    found = {
        path.stem: f"spar_bench.{family}.{path.stem}"
        for path in sorted(folder.glob("*.py"))
        if path.stem != "base" and not path.stem.startswith("_")
    }
    entries = entry_points(group=f"spar_bench.{family}")
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
    alone = {name for name in known if not _needs_data_file(family, name)}
    return sorted(alone | _data_files(family).keys())


def is_path(name: str) -> bool:
    """Tell whether a name is the path of a user's own data file."""
    return name.endswith((".yaml", ".yml"))


def data_file(family: str, name: str) -> Path | None:
    """Return the data file of a name, or None where it has none.

    For a plug-in of another package, it is beside its module.
    """
    if is_path(name):
        return Path(os.path.expanduser(name))
    if name in modules(family) and name not in _data_files(family):
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
    """Return the plug-in that serves a name: that of the same name, or its data file's.

    Raises:
        UnknownName: nothing has that name.
        DataFileError: its data file cannot be read, or names no plug-in.
    """
    known, path = modules(family), data_file(family, name)
    if name in known:
        return name
    if path is None:
        if "/" in name and family in ("backbones", "datasets"):
            raise UnknownName(
                f"{_ONE_OF[family]}: must be a known name, but got {name!r}; give a name, and a "
                "folder as its path"
            )
        raise UnknownName.among(_ONE_OF[family], name, names(family))
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


@cache
def _data_files(family: str) -> dict[str, Path]:
    folder = Path(__file__).parent / family
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _needs_data_file(family: str, name: str) -> bool:
    """Tell whether a module needs a data file; unreadable ones are listed, so users see them."""
    try:
        return bool(constant(_file(family, name), "NEEDS_DATA_FILE"))
    except SparBenchError:
        return False


def _file(family: str, name: str) -> Path:
    known = modules(family)
    top, *rest = known[name].split(".")
    package = importlib.util.find_spec(top)
    if package is not None and package.origin is not None and not rest:
        return Path(package.origin)
    for folder in (package and package.submodule_search_locations) or []:
        path = Path(folder).joinpath(*rest)
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.is_file():
                return file
    raise SparBenchError(
        f"{_ONE_OF[family]} {name!r}: must be installed, but there is no module {known[name]}; "
        "reinstall its package"
    )


@cache
def version(family: str, name: str) -> int:
    """Return a plug-in's `VERSION`, read from its source without running it.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: its module states no `VERSION`, or cannot be read.
    """
    path = source(family, name)
    value = constant(path, "VERSION")
    if not isinstance(value, int):
        raise SparBenchError(
            f"{path}: a plug-in must state VERSION = <integer>, but has none; add VERSION = 1"
        )
    return value


def versions(family: str, name: str) -> dict[str, int]:
    """Return the versions of the plug-in that serves a name and of those that it builds on.

    A module whose numbers come from another plug-in's code names it: `BUILDS_ON = "openclip"`.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: a module states no `VERSION`.
    """
    found: dict[str, int] = {}
    base: Any = plugin(family, name)
    while base is not None and base not in found:
        found[base] = version(family, base)
        base = constant(source(family, base), "BUILDS_ON")
    return found


def purpose(family: str, name: str) -> str:
    """Return the first line of a plug-in's docstring, read without running it."""
    return docstring(family, name).partition("\n")[0]


def docstring(family: str, name: str) -> str:
    """Return a plug-in's docstring, read without running it."""
    return ast.get_docstring(parsed(source(family, name))) or ""


def require(family: str, name: str) -> None:
    """Refuse a plug-in that a sweep could not use; those of this package are not imported.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: it states no `VERSION`, cannot be imported, or lacks its object.
    """
    versions(family, name)
    if not modules(family)[plugin(family, name)].startswith(f"spar_bench.{family}."):
        load(family, name)


def load(family: str, name: str) -> Any:
    """Import a plug-in and return its object.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: its module cannot be imported, or lacks the family's attribute.
    """
    path = source(family, name)
    try:
        module = importlib.import_module(modules(family)[plugin(family, name)])
    except Exception as error:  # a plug-in may raise anything
        reason = " ".join(str(error).split())
        raise SparBenchError(
            f"{path}: a {_ONE_OF[family]} must be importable, but got {type(error).__name__}: "
            f"{reason}; fix it, or install what it needs"
        ) from error
    attribute = ATTRIBUTES[family]
    if not hasattr(module, attribute):
        raise SparBenchError(
            f"{path}: a {_ONE_OF[family]} must define {attribute!r}, but has none; add it"
        )
    return getattr(module, attribute)
