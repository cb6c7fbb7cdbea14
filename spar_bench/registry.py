"""Find plug-ins by name without importing them: a name is a file's name or an entry point's.

A family is a folder of the package (`losses/`, `backbones/`, `datasets/`, `refiners/`), one module
a plug-in, and the entry point group of the same name (`spar_bench.losses`, ...), whose entries name
a module of another distribution. The module holds one object under the family's attribute
(`loss`, `Backbone`, `Dataset`, `Refiner`) and `VERSION`, an integer that its author raises when its
numbers change: it is part of the fingerprint of everything made with the plug-in.
"""

import ast
import importlib
import importlib.util
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from spar_bench.errors import SparBenchError, UnknownName

ATTRIBUTES = {
    "backbones": "Backbone",
    "datasets": "Dataset",
    "losses": "loss",
    "refiners": "Refiner",
}
_ONE_OF = {
    "backbones": "backbone",
    "datasets": "data set",
    "losses": "loss",
    "refiners": "refiner",
}
_NOT_PLUGINS = {"__init__", "base", "images"}


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
        if path.stem not in _NOT_PLUGINS
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
    """Return the names of a family's plug-ins, sorted; imports none of them."""
    return sorted(modules(family))


def source(family: str, name: str) -> Path:
    """Return the file of a plug-in's module, found without running it.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: its module is not where its entry point says.
    """
    known = modules(family)
    if name not in known:
        raise UnknownName.among(_ONE_OF[family], name, known)
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
        "install its package again"
    )


@cache
def version(family: str, name: str) -> int:
    """Return a plug-in's `VERSION`, read from its source without running it.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: its module states no `VERSION`, or cannot be read.
    """
    path = source(family, name)
    value = _constant(path, "VERSION")
    if not isinstance(value, int):
        raise SparBenchError(
            f"{path}: a plug-in must state VERSION = <integer>, but has none; add VERSION = 1"
        )
    return value


def versions(family: str, name: str) -> dict[str, int]:
    """Return the versions of a plug-in and of those that it builds on, by name.

    A module whose numbers come from another plug-in's code names it: `BUILDS_ON = "openclip"`.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: a module states no `VERSION`.
    """
    found: dict[str, int] = {}
    base: Any = name
    while base is not None and base not in found:
        found[base] = version(family, base)
        base = _constant(source(family, base), "BUILDS_ON")
    return found


def _constant(path: Path, name: str) -> Any:
    """Return what a module assigns to a name at its top level, or None where it is no literal."""
    for node in _parsed(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = [target.id for target in targets if isinstance(target, ast.Name)]
        value = getattr(node, "value", None)
        if name in named and isinstance(value, ast.Constant):
            return value.value
    return None


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), path.name)
    except (OSError, SyntaxError, ValueError) as error:
        raise SparBenchError(
            f"{path}: a plug-in must be a file of Python, but cannot be read: {error}; mend it"
        ) from error


def purpose(family: str, name: str) -> str:
    """Return the first line of a plug-in's docstring, read without running it."""
    text = ast.get_docstring(_parsed(source(family, name))) or ""
    return text.partition("\n")[0]


def require(family: str, name: str) -> None:
    """Refuse a plug-in that a sweep could not use; one of this package is not imported for it.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: it states no `VERSION`, cannot be imported, or lacks its object.
    """
    versions(family, name)
    if not modules(family)[name].startswith(f"spar_bench.{family}."):
        load(family, name)


def load(family: str, name: str) -> Any:
    """Import a plug-in and return its object.

    Raises:
        UnknownName: no plug-in of that name.
        SparBenchError: its module cannot be imported, or lacks the family's attribute.
    """
    path = source(family, name)
    try:
        module = importlib.import_module(modules(family)[name])
    except Exception as error:  # whatever a plug-in's author may raise
        reason = " ".join(str(error).split())
        raise SparBenchError(
            f"{path}: a {_ONE_OF[family]} must be importable, but got {type(error).__name__}: "
            f"{reason}; mend it, or install what it needs"
        ) from error
    attribute = ATTRIBUTES[family]
    if not hasattr(module, attribute):
        raise SparBenchError(
            f"{path}: a {_ONE_OF[family]} must define {attribute!r}, but has none; add it"
        )
    return getattr(module, attribute)
