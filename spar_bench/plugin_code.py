"""Tell numbers of a built-in plug-in from those of its code as edited under its old VERSION.

Each manifest records the source of the plug-ins that made it: a plug-in's module, those that its
family shares (`base`, `_*`), and those in a folder of its name (`patchwork/`). `sha256` is that of
their bytes; `syntax` that of their syntax trees without docstrings, which neither a comment nor a
line break changes. Plug-ins outside the package need no record: fingerprints contain their source.

`plugin_code.json` lists, by plug-in and VERSION, each `syntax` whose numbers were tested to be the
same, so that a plug-in can be rewritten without its users repeating their work.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from spar_bench import registry
from spar_bench.errors import StoreError
from spar_bench.files import file_sha256
from spar_bench.sources import parsed

Record = dict[str, dict[str, str]]
"""`sha256` and `syntax` of a plug-in's source, by a key such as `losses/mse 1`."""

FAMILIES = {
    "backbone": "backbones",
    "text_tower": "backbones",
    "read_out": "read_outs",
    "loss": "losses",
    "refiner": "refiners",
    "dataset": "datasets",
    "source": "datasets",
}
"""The family of the plug-in that a setting of a stage identifies, by the setting's name."""
SAME_NUMBERS = Path(__file__).with_suffix(".json")
_PACKAGE = Path(__file__).parent
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def key_of(family: str, name: str, version: int) -> str:
    """Return the key of a plug-in of a version."""
    return f"{family}/{name} {version}"


def record(settings: Mapping[str, Any]) -> Record:
    """Return the source of each built-in plug-in that a stage's settings identify.

    A process looks at each plug-in once, since it goes on with the code that it has imported.
    """
    return {
        key_of(family, name, version): {
            "sha256": _sha256(family, name),
            "syntax": syntax_sha256(family, name),
        }
        for family, name, version in sorted(set(_identified(settings, "")))
        if _is_built_in(family, name)
    }


def require_unedited(records: Iterable[Record]) -> None:
    """Refuse what a plug-in made whose code has changed since under the same VERSION.

    Raises:
        StoreError: it has; one line for each such plug-in.
    """
    edited = {key for one in records for key in edited_plugins(one)}
    if edited:
        raise StoreError("\n".join(map(refusal, sorted(edited))))


def edited_plugins(one: Record) -> list[str]:
    """Return the keys of the plug-ins that have their recorded VERSION, but another code now."""
    return [key for key, source in one.items() if _is_edited(key, **source)]


def refusal(key: str) -> str:
    """Return the line about a plug-in that was edited under its VERSION."""
    family, name, version = _parts(key)
    return (
        f"{registry.source(family, name)}: VERSION must be raised when the code of a plug-in "
        f"changes, but is {version} as before, and the store has what the old code made; raise it, "
        "after which `spar-bench cache gc` deletes that, or undo the change"
    )


def built_in() -> Iterator[tuple[str, str]]:
    """Yield the family and name of each plug-in whose source is recorded."""
    for family in sorted(set(FAMILIES.values())):
        yield from ((family, n) for n in registry.modules(family) if _is_built_in(family, n))


@cache
def syntax_sha256(family: str, name: str) -> str:
    """Return the SHA-256 of a built-in plug-in's syntax trees without docstrings."""
    trees = [_plain(parsed(path)) for path in _files(family, name)]
    return hashlib.sha256(repr(trees).encode()).hexdigest()


@cache
def same_numbers() -> dict[str, list[str]]:
    """Return the table of syntaxes that were tested to give the same numbers."""
    table: dict[str, list[str]] = json.loads(SAME_NUMBERS.read_text(encoding="utf-8"))
    return table


@cache
def _is_edited(key: str, sha256: str, syntax: str) -> bool:
    family, name, version = _parts(key)
    if not _is_built_in(family, name) or registry.version(family, name) != version:
        return False
    if sha256 == _sha256(family, name):  # spares the parsing
        return False
    now = syntax_sha256(family, name)
    return syntax != now and not {syntax, now} <= set(same_numbers().get(key, []))


def _parts(key: str) -> tuple[str, str, int]:
    plugin, _, version = key.rpartition(" ")
    family, _, name = plugin.partition("/")
    return family, name, int(version)


def _identified(value: Any, role: str) -> Iterator[tuple[str, str, int]]:
    """Yield family, name and version of all plug-ins that identities in settings name."""
    if not isinstance(value, Mapping):
        return
    if role in FAMILIES and {"versions", "sources"} <= value.keys():
        yield from ((FAMILIES[role], name, version) for name, version in value["versions"].items())
    for key, inner in value.items():
        yield from _identified(inner, role if key == "plugin" else key)


def _is_built_in(family: str, name: str) -> bool:
    return registry.modules(family).get(name) == f"spar_bench.{family}.{name}"


def _files(family: str, name: str) -> list[Path]:
    folder = _PACKAGE / family
    shared = [*folder.glob("base.py"), *folder.glob("_[!_]*.py")]
    return [folder / f"{name}.py", *sorted(shared), *sorted((_PACKAGE / name).glob("*.py"))]


@cache
def _sha256(family: str, name: str) -> str:
    """Return the SHA-256 over those of a plug-in's files."""
    each = "".join(map(file_sha256, _files(family, name)))
    return hashlib.sha256(each.encode()).hexdigest()


def _plain(node: Any) -> Any:
    """Return a syntax tree as lists, the same for each version of Python: no empty fields."""
    if isinstance(node, list):
        return [_plain(one) for one in node]
    if not isinstance(node, ast.AST):
        return node
    fields = {key: value for key, value in ast.iter_fields(node) if value not in (None, [])}
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
        fields["body"] = fields["body"][1:]
    return [type(node).__name__, *((key, _plain(value)) for key, value in fields.items())]
