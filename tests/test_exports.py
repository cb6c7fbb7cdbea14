"""What the package offers under its own name."""

import ast
import importlib
from pathlib import Path

import pytest

import spar_bench

PACKAGE = Path(spar_bench.__file__).parent


def exporting_modules() -> list[str]:
    """Return the dotted names of the modules that state `__all__`."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        names = [
            target.id
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            for target in (node.targets if isinstance(node, ast.Assign) else [])
            if isinstance(target, ast.Name)
        ]
        if "__all__" in names:
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            found.append(".".join(part for part in parts if part != "__init__"))
    return found


@pytest.mark.parametrize("name", exporting_modules())
def test_every_name_in_all_resolves(name: str) -> None:
    module = importlib.import_module(name)

    assert len(set(module.__all__)) == len(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_name_that_the_package_does_not_have_is_an_attribute_error() -> None:
    name = "no_such_name"

    with pytest.raises(AttributeError, match=name):
        getattr(spar_bench, name)


def test_no_name_hides_a_module_of_its_package() -> None:
    hidden = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1].startswith("__"):
            continue
        module = importlib.import_module(".".join(parts))
        if getattr(importlib.import_module(".".join(parts[:-1])), parts[-1]) is not module:
            hidden.append(".".join(parts))

    assert hidden == []
