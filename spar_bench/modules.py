"""Modules of plug-ins outside this package: found without running them, and imported by path."""

import importlib.util
import os
import sys
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from spar_bench import sources

_PREFIX = "spar_bench_by_path_"


def module_name(path: Path) -> str:
    """Return the name by which a file can be imported, another one once its contents change."""
    return f"{_PREFIX}{sources.sha256(path)[:12]}_{os.fsencode(path.absolute()).hex()}"


class _ByPath:
    """Finds modules named by `module_name`, also in a process that unpickles their objects."""

    @staticmethod
    def find_spec(fullname: str, *_: Any) -> ModuleSpec | None:
        """Return where the module of a name is, as `importlib` asks each finder."""
        if not fullname.startswith(_PREFIX):
            return None
        path = os.fsdecode(bytes.fromhex(fullname.rpartition("_")[2]))
        return importlib.util.spec_from_file_location(fullname, path)


sys.meta_path.append(_ByPath)


@cache
def module_file(dotted: str) -> Path | None:
    """Return the file of a module, found without importing its package."""
    top, *rest = dotted.split(".")
    package = importlib.util.find_spec(top)
    if package is not None and package.origin is not None and not rest:
        return Path(package.origin)
    for folder in (package and package.submodule_search_locations) or []:
        path = Path(folder).joinpath(*rest)
        for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def digests(dotted: str) -> dict[str, str]:
    """Return the SHA-256 of a module's file and of those of its own package that it imports."""
    found, open_ends = dict[str, str](), [dotted]
    top = dotted.partition(".")[0]
    while open_ends:
        name = open_ends.pop()
        file = module_file(name)
        if file is None and "." in name:  # a name in a module
            name = name.rpartition(".")[0]
            file = module_file(name)
        if file is not None and name not in found:
            found[name] = sources.sha256(file)
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            open_ends += [
                one for one in sources.imported(file, package) if one.partition(".")[0] == top
            ]
    return found
