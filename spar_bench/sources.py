"""Read plug-ins' data files and modules without running them, each once until it changes.

A plan asks for the same file a thousand times.
"""

import ast
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from spar_bench.errors import DataFileError, SparBenchError

Stamp = tuple[int, int, int]
_UNREADABLE = (ValueError, LookupError, TypeError, AssertionError, RecursionError, OverflowError)
"""What ruamel raises for values that are not what they claim: a date, a tag, a version, a depth."""


def read_data_file(path: Path) -> dict[str, Any]:
    """Return what a YAML file holds, not to be modified.

    Raises:
        DataFileError: it cannot be read, or is not a map of keys to values.
    """
    try:
        read = _yaml(path, _stamp(path))
    except FileNotFoundError as error:
        raise DataFileError(
            f"{path}: a data file must exist, but does not; correct its name"
        ) from error
    except (OSError, YAMLError, *_UNREADABLE) as error:
        reason = " ".join(str(error).split())
        raise DataFileError(
            f"{path}: a data file must be readable YAML, but is not: {reason}; fix it"
        ) from error
    if not isinstance(read, dict) or not all(isinstance(key, str) for key in read):
        raise DataFileError(f"{path}: a data file must map keys to values, but does not; fix it")
    return read


def parsed(path: Path) -> ast.Module:
    """Parse a module.

    Raises:
        SparBenchError: it cannot be read, or is not Python.
    """
    try:
        return _tree(path, _stamp(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise SparBenchError(
            f"{path}: a plug-in must be a Python file, but cannot be read: {error}; fix it"
        ) from error


def constant(path: Path, name: str) -> Any:
    """Return the literal that a module assigns to a name at its top level, or None.

    Raises:
        SparBenchError: as `parsed`.
    """
    for node in parsed(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = [target.id for target in targets if isinstance(target, ast.Name)]
        value = getattr(node, "value", None)
        if name in named and isinstance(value, ast.Constant):
            return value.value
    return None


def _stamp(path: Path) -> Stamp:
    """Return what changes when the file does."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=256)
def _yaml(path: Path, _: Stamp) -> Any:
    return YAML(typ="safe", pure=True).load(path)


@lru_cache(maxsize=256)
def _tree(path: Path, _: Stamp) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), path.name)
