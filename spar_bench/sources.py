"""Read plug-ins' data files and modules without running them, each once until it changes.

A plan asks for the same file a thousand times.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from spar_bench.errors import DataFileError, SparBenchError
from spar_bench.files import file_sha256

_HIGHEST_POWER = 16
_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
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
        SparBenchError: it does not exist, cannot be read, or is not Python.
    """
    try:
        return _tree(path, _stamp(path))
    except FileNotFoundError as error:
        raise SparBenchError(f"{path}: a plug-in must exist, but does not; correct it") from error
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise SparBenchError(
            f"{path}: a plug-in must be a Python file, but cannot be read: {error}; fix it"
        ) from error


def constant(path: Path, name: str) -> Any:
    """Return the literal that a module assigns to a name at its top level, or None.

    It is not to be modified.

    Raises:
        SparBenchError: as `parsed`.
    """
    return _constant(parsed(path), name)


def literal(expression: ast.expr) -> Any:
    """Return the value of a literal, or None if the expression is not one."""
    try:
        return ast.literal_eval(expression)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None


def arithmetic(formula: str, values: Mapping[str, Any]) -> float:
    """Return what a formula gives: numbers and named values, and `+ - * // **`; nothing is run.

    Raises:
        ValueError: it has anything else, or a value is no number.
    """
    return _value(_expression(formula), values)


def defines(path: Path, name: str) -> bool:
    """Return whether a module binds a name at its top level; raises as `parsed`."""
    return any(name in _bound(node) for node in parsed(path).body)


def keyword_only(
    path: Path, name: str, method: str = "__init__"
) -> dict[str, ast.expr | None] | None:
    """Return the keyword-only parameters of a function, or of a class's method.

    Each is mapped to its default; None without such a function in this module. Raises as `parsed`.
    """
    body = parsed(path).body
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            body, name = node.body, method
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            names = [argument.arg for argument in node.args.kwonlyargs]
            return dict(zip(names, node.args.kw_defaults, strict=True))
    return None


def imported(path: Path, package: str) -> Iterator[str]:
    """Yield the dotted names that a module of a package imports: `a.b` for `from a import b`.

    Raises:
        SparBenchError: as `parsed`, or it imports from above its package.
    """
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            base = _absolute(module, package, path) if node.level else module
            yield from (f"{base}.{alias.name}" for alias in node.names)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a module's file."""
    return _sha256(path, _stamp(path))


def _absolute(module: str, package: str, path: Path) -> str:
    try:
        return resolve_name(module, package)
    except ImportError as error:
        raise SparBenchError(
            f"{path}: must import from its own package, but `from {module}` is above it; correct it"
        ) from error


def _value(node: ast.expr, values: Mapping[str, Any]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id=name) if type(values.get(name)) in (int, float):
            return float(values[name]) if isinstance(values[name], float) else int(values[name])
        case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
            first, second = _value(left, values), _value(right, values)
            if isinstance(operator, ast.Pow) and (first < 0 or abs(second) > _HIGHEST_POWER):
                raise ValueError(f"{ast.unparse(node)!r} is no power of 0 to {_HIGHEST_POWER}")
            return _OPERATORS[type(operator)](first, second)
    raise ValueError(f"{ast.unparse(node)!r} is no arithmetic")


def _bound(node: ast.stmt) -> list[str]:
    """Return the names that a statement binds."""
    match node:
        case ast.FunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Import() | ast.ImportFrom():
            return [alias.asname or alias.name for alias in node.names]
        case ast.Assign():
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


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


@lru_cache(maxsize=1024)
def _constant(module: ast.Module, name: str) -> Any:
    for node in module.body:
        if name in _bound(node) and (value := getattr(node, "value", None)) is not None:
            return literal(value)
    return None


@lru_cache(maxsize=256)
def _expression(formula: str) -> ast.expr:
    return ast.parse(formula, mode="eval").body


@lru_cache(maxsize=256)
def _sha256(path: Path, _: Stamp) -> str:
    return file_sha256(path)
