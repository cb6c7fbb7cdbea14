"""The architecture: which part may import which, found from sources and loaded modules."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import spar_bench
from tests.small import printed

PACKAGE = Path(spar_bench.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
STAGES = ["spec", "plan", "run", "track", "report"]
FAMILIES = ["backbones", "components", "datasets", "losses", "read_outs", "refiners"]

HEAVY = ["torch", "open_clip", "timm", "mlflow", "optuna", "pandas", "matplotlib", "seaborn"]
LIGHT = ["__init__", "errors", "registry", "digests", "suggest", "validation", "values"]
LIGHT += ["conflicts", "spec/", "plan/", "datasets/", "read_outs/"]
LIGHT += ["components/backbone", "components/flops"]

ONLY_IN = {
    "mlflow": ["track/"],
    "pandas": ["report/"],
    "seaborn": ["report/"],
    "matplotlib": ["report/"],
    "click": ["cli"],
    "rich": ["cli"],
    "pytest": ["testing.py"],
}
"""Libraries that have one place."""

NEVER_IN = {
    "spec/": ["torch", "torchvision", "open_clip", "timm", "mlflow", "optuna"],
    "plan/": ["torch", "torchvision", "open_clip", "timm", "mlflow", "optuna"],
    "datasets/": ["torch", "torchvision"],
    "read_outs/": ["torch", "torchvision"],
    "run/": ["optuna"],
    "report/": ["torch", "optuna"],
}
"""Libraries that a place does without, not even late."""


def place(path: Path) -> str:
    """Return a module's path inside the package, or as it is outside."""
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else str(path)


def dotted(path: Path) -> str:
    """Return the name that a module is imported by."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports, wherever in it, for type checking or not."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place(path)}: write absolute imports"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offences(folder: str, forbidden: list[str]) -> list[str]:
    """Return `module: import` for each import of `forbidden` below a place of the package."""
    return [
        f"{place(path)}: {name}"
        for path in MODULES
        if place(path).startswith(folder)
        for name in imports(path)
        if any(name == banned or name.startswith(f"{banned}.") for banned in forbidden)
    ]


def test_the_package_is_found_with_all_its_places() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}

    assert folders >= {*STAGES, *FAMILIES}


def test_imports_are_seen_wherever_and_however_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("import a.b as c\ndef f():\n    from d import e\n    import g, h\n")

    assert list(imports(path)) == ["a.b", "d.e", "g", "h"]
    assert "losses/mse.py: torch.nn.functional" in offences("losses/", ["torch"])


def test_relative_import_is_refused(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("from .base import matched\n")

    with pytest.raises(AssertionError, match="absolute"):
        list(imports(module))


@pytest.mark.parametrize("stage", STAGES)
def test_stage_imports_no_later_stage(stage: str) -> None:
    later = [f"spar_bench.{name}" for name in STAGES[STAGES.index(stage) + 1 :]]

    assert offences(f"{stage}/", [*later, "spar_bench.session", "spar_bench.cli"]) == []


def test_spec_imports_no_plug_in_family() -> None:
    families = [f"spar_bench.{family}" for family in FAMILIES]

    assert offences("spec/", [*families, "spar_bench.conflicts"]) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_plug_in_family_imports_no_stage_but_the_schema(family: str) -> None:
    stages = [f"spar_bench.{stage}" for stage in STAGES]

    found = offences(f"{family}/", [*stages, "spar_bench.session", "spar_bench.cli"])

    assert [line for line in found if "spar_bench.spec." not in line] == []


def test_embedded_world_is_a_leaf_and_the_package_does_without_its_recipe() -> None:
    found = offences("patchwork/", ["spar_bench"])

    own = ("spar_bench.patchwork", "spar_bench.files")
    assert [line for line in found if not line.split(": ")[1].startswith(own)] == []
    assert offences("", ["recipes"]) == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_is_imported_in_its_place_alone(library: str) -> None:
    found = offences("", [library])

    assert [line for line in found if not line.startswith(tuple(ONLY_IN[library]))] == []


@pytest.mark.parametrize("folder", NEVER_IN)
def test_place_does_without_libraries_that_are_not_its_own(folder: str) -> None:
    assert offences(folder, NEVER_IN[folder]) == []


@pytest.mark.parametrize("folder", LIGHT)
def test_importing_any_module_of_it_loads_nothing_heavy(folder: str) -> None:
    modules = [dotted(path) for path in MODULES if place(path).startswith(folder)]
    code = f"import sys, {', '.join(modules)}; print(*sorted({set(HEAVY)} & set(sys.modules)))"

    assert printed(code) == ""


def test_every_module_opens_with_a_docstring_of_one_sentence_on_its_first_line() -> None:
    missing = []
    for path in MODULES:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if not docstring.split("\n")[0].endswith("."):
            missing.append(place(path))

    assert missing == []


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "misc"}

    assert [place(path) for path in MODULES if path.stem in drawers] == []


def test_nothing_is_unpickled() -> None:
    assert offences("", ["pickle", "cloudpickle", "joblib", "dill"]) == []
