"""Plug-ins by name: found without being imported, and every failure explained."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from spar_bench import registry, sources
from spar_bench.errors import SparBenchError, UnknownName

BUILT_IN = [(family, name) for family in registry.ATTRIBUTES for name in registry.names(family)]


@pytest.fixture
def add_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Let `add_module(text)` make a loss called `mine` of a module outside the package."""

    def add(text: str | None) -> Path:
        path = tmp_path / "outside.py"
        if text is not None:
            path.write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(registry, "modules", lambda family: {"mine": "outside"})
        return path

    yield add
    sys.modules.pop("outside", None)
    registry.version.cache_clear()


def test_every_family_has_plug_ins() -> None:
    assert {family for family, _ in BUILT_IN} == set(registry.ATTRIBUTES)


@pytest.mark.parametrize(("family", "name"), BUILT_IN)
def test_built_in_plug_in_states_its_version_and_defines_its_object(family: str, name: str) -> None:
    assert registry.version(family, name) >= 1
    assert callable(registry.load(family, name))


def test_names_are_those_of_the_files_and_sorted() -> None:
    assert registry.names("losses") == ["cosine", "l1", "mse", "normalized_mse", "smooth_l1"]
    assert {"base", "_images", "images"}.isdisjoint(registry.names("datasets"))


def test_names_and_versions_are_found_without_importing_anything_heavy() -> None:
    code = (
        "import sys; from spar_bench import registry\n"
        "found = [registry.version(f, n) for f in registry.ATTRIBUTES for n in registry.names(f)]\n"
        "assert found\n"
        "print(*sorted({'torch', 'PIL', 'numpy', 'spar_bench.losses.mse'} & set(sys.modules)))"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (result.stdout.strip(), result.stderr) == ("", "")


@pytest.mark.parametrize("look", [registry.version, registry.load, registry.source])
def test_unknown_name_is_answered_with_the_nearest(look: Any) -> None:
    with pytest.raises(UnknownName) as caught:
        look("losses", "cosin")

    assert (
        str(caught.value) == "loss: must be a known name, but got 'cosin'; did you mean 'cosine'?"
    )


def test_unknown_name_like_none_is_answered_with_the_first_few() -> None:
    few = UnknownName.among("loss", "wombat", ["mse", "l1"])
    many = UnknownName.among("trial", "wombat", [f"stride_px={n}" for n in range(10, 40)])

    assert str(few) == "loss: must be a known name, but got 'wombat'; use one of l1, mse"
    assert str(many).endswith("stride_px=20, stride_px=21 or 18 more")


@pytest.mark.parametrize("line", ["VERSION = 3", "VERSION: int = 3", "A = VERSION = 3"])
def test_version_is_read_from_the_source_without_running_it(add_module: Any, line: str) -> None:
    add_module(f"{line}\nraise RuntimeError('imported')\n")

    assert registry.version("losses", "mine") == 3


def test_versions_are_those_of_the_plug_in_and_of_what_it_builds_on() -> None:
    assert registry.versions("losses", "mse") == {"mse": 1}
    assert registry.versions("backbones", "patchwork") == {"patchwork": 1, "openclip": 1}


@pytest.mark.parametrize("line", ["", "VERSION = '1'", "VERSION = 1 + 1", "def VERSION(): ..."])
def test_plug_in_without_a_version_is_refused(add_module: Any, line: str) -> None:
    path = add_module(line)

    with pytest.raises(SparBenchError, match="must state VERSION = <integer>") as caught:
        registry.version("losses", "mine")

    assert str(caught.value).startswith(f"{path}: ")


def test_plug_in_without_its_object_is_refused(add_module: Any) -> None:
    path = add_module("VERSION = 1\ndef lose(a, b): ...\n")

    with pytest.raises(SparBenchError, match=r"a loss must define 'loss', but has none"):
        registry.load("losses", "mine")

    assert registry.source("losses", "mine") == path


def test_module_that_is_gone_is_named(add_module: Any) -> None:
    add_module(None)

    with pytest.raises(SparBenchError, match=r"loss 'mine': must be installed, .* outside"):
        registry.load("losses", "mine")


def test_refiner_none_returns_the_scores_themselves() -> None:
    scores = torch.rand(3, 4, 6)

    assert registry.load("refiners", "none")()(scores, torch.rand(3, 32, 48)) is scores


def test_data_file_is_parsed_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("plugin: tree\nlicense: MIT\n")
    registry.data("datasets", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(sources, "YAML", None)
        again = registry.data("datasets", str(path))
    path.write_text("plugin: tree\nlicense: Apache-2.0\n")
    changed = registry.data("datasets", str(path))

    assert again == {"license": "MIT"}
    assert changed == {"license": "Apache-2.0"}


def test_folder_in_place_of_a_name_is_told_where_it_goes() -> None:
    with pytest.raises(UnknownName, match="got '/my/clip'; give a name, and a folder as its path"):
        registry.plugin("backbones", "/my/clip")
