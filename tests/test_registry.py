"""Plug-ins by name: found without being imported, and every failure explained."""

import hashlib
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spar_bench import registry, sources
from spar_bench.errors import SparBenchError, UnknownName
from spar_bench.families import FAMILIES
from tests.small import printed

BUILT_IN = [
    (family, name)
    for family in FAMILIES
    for name in (registry.modules if family == "stages" else registry.names)(family)
]


Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Let `write(text)` make a loss of a user's own file, and return its path as a name."""

    def write(text: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_every_family_has_plug_ins() -> None:
    assert {family for family, _ in BUILT_IN} == set(FAMILIES)


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
        "found = [registry.version(f, n) for f in registry.FAMILIES for n in registry.names(f)]\n"
        "assert found\n"
        "print(*sorted({'torch', 'PIL', 'numpy', 'spar_bench.losses.mse'} & set(sys.modules)))"
    )

    assert printed(code) == ""


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
def test_version_is_read_from_the_source_without_running_it(write: Write, line: str) -> None:
    name = write(f"{line}\nraise RuntimeError('imported')\n")

    assert registry.version("losses", name) == 3


@pytest.mark.parametrize(
    "line", ["", "VERSION = '1'", "VERSION = 1 + 1", "VERSION = True", "def VERSION(): ..."]
)
def test_plug_in_without_a_version_is_refused(write: Write, line: str) -> None:
    name = write(line)

    with pytest.raises(SparBenchError, match="must state VERSION = <integer>") as caught:
        registry.version("losses", name)

    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("refuse", [registry.load, registry.require_stated])
def test_plug_in_without_its_object_is_refused(write: Write, refuse: Any) -> None:
    name = write("VERSION = 1\ndef lose(a, b): ...\n")

    with pytest.raises(SparBenchError, match=r"a loss must define 'loss', but has none"):
        refuse("losses", name)


def test_plug_in_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gone.py"

    with pytest.raises(SparBenchError) as caught:
        registry.require_stated("losses", str(path))

    assert str(caught.value) == f"{path}: a plug-in must exist, but does not; correct it"


SETTINGS = """
VERSION = 1
def loss(student, teacher, *, k: int = 5, low=-0.5, on=True, kind="a", sides: tuple = (1, 2)):
    return k, low, on, kind, sides
"""


def test_settings_are_keyword_only_parameters_read_without_running_the_module(write: Write) -> None:
    name = write(SETTINGS + "raise RuntimeError('imported')\n")

    assert registry.parameters("losses", name) == {
        "k": 5, "low": -0.5, "on": True, "kind": "a", "sides": (1, 2)
    }  # fmt: skip


def test_settings_of_a_class_are_those_of_its_constructor(write: Write) -> None:
    name = write(
        "VERSION = 1\nclass Refiner:\n"
        "    def __init__(self, device=None, *, k: int = 5): ...\n"
        "    def other(self, *, x: int = 1): ...\n"
    )

    assert registry.parameters("refiners", name) == {"k": 5}


@pytest.mark.parametrize("parameter", ["k", "k=None", "k={}", "k=[[1]]", "k=BETA", "name='x'"])
def test_setting_without_a_literal_default_is_refused(write: Write, parameter: str) -> None:
    name = write(f"VERSION = 1\nBETA = 2\ndef loss(student, teacher, *, {parameter}): ...\n")

    with pytest.raises(SparBenchError, match=r"must have a literal .* as its default") as caught:
        registry.parameters("losses", name)

    assert f"but {parameter.partition('=')[0]!r} breaks this" in str(caught.value)


def test_settings_reach_the_function_in_the_kind_of_their_default(write: Write) -> None:
    name = write(SETTINGS)

    configured = registry.configured("losses", name, {"k": 7, "sides": [3]})

    assert configured(None, None) == (7, -0.5, True, "a", (3,))


@pytest.mark.parametrize(
    ("family", "name"), [one for one in BUILT_IN if FAMILIES[one[0]].method == "__init__"]
)
def test_settings_of_built_in_plug_ins_are_what_python_sees(family: str, name: str) -> None:
    loaded = registry.load(family, name)
    made = loaded.__init__ if inspect.isclass(loaded) else loaded
    seen = inspect.signature(made).parameters.values()

    assert registry.parameters(family, name) == {
        one.name: one.default for one in seen if one.kind == one.KEYWORD_ONLY
    }


def test_identity_has_every_setting_whether_it_is_given_or_not() -> None:
    left_out = registry.identity("losses", "smooth_l1")
    given = registry.identity("losses", "smooth_l1", {"beta": 0.5})

    assert (left_out.settings, given.settings) == ({"beta": 1.0}, {"beta": 0.5})
    assert left_out == registry.identity("losses", "smooth_l1", {"beta": 1.0})


def test_identity_of_a_plug_in_of_the_package_has_versions_alone() -> None:
    patchwork = registry.identity("backbones", "patchwork")
    naflex = registry.identity("backbones", "siglip2-b16-naflex")

    assert patchwork.versions == {"patchwork": 2, "openclip": 2}
    assert (naflex.name, list(naflex.versions)) == ("naflex", ["naflex", "siglip2", "openclip"])
    assert patchwork.sources == naflex.sources == {}


def test_identity_has_the_file_of_ones_own_plug_in_and_what_it_builds_on(write: Write) -> None:
    text = 'VERSION = 2\nBUILDS_ON = ("mse", "l1")\ndef loss(student, teacher): ...\n'
    name = write(text)

    identity = registry.identity("losses", name)

    assert identity.name == "mine"
    assert identity.versions == {"mine.py": 2, "mse": 1, "l1": 1}
    assert identity.sources == {"mine.py": hashlib.sha256(text.encode()).hexdigest()}


def test_plug_ins_that_build_on_each_other_are_counted_once(write: Write) -> None:
    name = write("VERSION = 2\nBUILDS_ON = 'FILE'\ndef loss(student, teacher): ...\n")
    Path(name).write_text(Path(name).read_text().replace("FILE", name))

    assert registry.identity("losses", name).versions == {"mine.py": 2}


def test_plug_in_of_unknown_lineage_is_refused(write: Write) -> None:
    name = write('VERSION = 2\nBUILDS_ON = "msee"\ndef loss(student, teacher): ...\n')

    with pytest.raises(UnknownName, match="but got 'msee'; did you mean 'mse'"):
        registry.identity("losses", name)


def test_ones_own_file_is_imported_again_once_it_changes(write: Write) -> None:
    before = registry.load("losses", write("VERSION = 1\ndef loss(a, b): return 'before'\n"))
    after = registry.load("losses", write("VERSION = 1\ndef loss(a, b): return 'and after'\n"))

    assert (before(1, 2), after(1, 2)) == ("before", "and after")


def test_object_of_ones_own_file_can_be_sent_to_another_process(tmp_path: Path) -> None:
    path = tmp_path / "chess.py"
    path.write_text("VERSION = 1\nclass Dataset:\n    side = 8\n")
    sent = pickle.dumps(registry.load("datasets", str(path))())

    code = "import sys, pickle, spar_bench.registry; print(pickle.load(sys.stdin.buffer).side)"
    result = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True)

    assert (result.stdout.strip(), result.stderr) == (b"8", b"")


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


@pytest.mark.parametrize(
    "text",
    [
        "VERSION = 1\nBUILDS_ON = 3\n",
        "VERSION = 1\nBUILDS_ON = [1]\n",
        "VERSION = {[]: 1}\n",
        "VERSION = 1\nx = " + "-" * 200_000 + "1\n",
    ],
)
def test_odd_literals_are_the_plug_ins_mistake(write: Write, text: str) -> None:
    name = write(f"{text}\ndef loss(student, teacher): ...\n")

    with pytest.raises(SparBenchError) as caught:
        registry.require_stated("losses", name)

    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)
