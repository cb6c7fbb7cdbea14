"""The commands `doctor`, `backbones`, `losses` and `refiners`: what is installed and found."""

import sys
from pathlib import Path

import pytest

from spar_bench import registry
from spar_bench.components.backbone import card
from spar_bench.components.weights import BackboneCard
from tests.small import spar_bench, write_spec


def test_doctor_tells_versions_store_plug_ins_and_specs(in_swept: Path) -> None:
    said = spar_bench("doctor").stdout

    for name in ("torch", "device", "store", "tracking"):
        assert any(line.startswith(name) for line in said.splitlines()), name
    assert "weights         found: patchwork; spar-bench backbones lists the others\n" in said
    assert "data sets       found: patchwork; spar-bench datasets lists the others\n" in said
    assert "(15 stages, " in said
    assert "experiments/tiny.yaml: ready" in said


def test_doctor_of_a_broken_installation_says_what_is_broken(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    write_spec("evaluate: {datasets: [{path: nowhere}]}\n", "lacking")
    write_spec("teachr: {}\n", "wrong")
    Path(".spar_bench").write_text("not a folder")

    said = spar_bench("doctor").stdout

    assert "torch cannot be loaded" in said
    assert "must be a writable folder" in said
    assert "experiments/lacking.yaml: 1 missing\n  nowhere" in said
    assert "experiments/wrong.yaml: has mistakes; spar-bench check" in said


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:///mlflow.db", "(answers)\n"),
        ("sqlite:///none.db", "(will be created)\n"),
        ("http://127.0.0.1:9", "cannot be used: tracking URI http://127.0.0.1:9: must be"),
        ("mlruns", "cannot be used: --tracking-uri: must be"),
    ],
)
def test_doctor_tells_whether_the_tracking_store_answers(here: Path, uri: str, said: str) -> None:
    assert said in spar_bench("doctor", "--tracking-uri", uri).stdout
    assert not Path("none.db").exists()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("backbones", "patchwork"),
        ("datasets", "patchwork"),
        ("losses", "mse"),
        ("refiners", "none"),
    ],
)
def test_plug_ins_are_listed_within_80_characters(command: str, name: str) -> None:
    said = spar_bench(command).stdout.splitlines()

    assert max(map(len, said)) <= 80
    assert any(line.startswith(f"{name} ") for line in said)


def test_licence_column_has_licences_alone() -> None:
    from_files = {"": "openclip", **{card.license: name for name, card in cards().items()}}

    said = spar_bench("backbones").stdout.split("\n\n")[0].splitlines()

    where = said[0].index("licence")
    assert {line[where:].strip() for line in said[1:]} == from_files.keys()


def cards() -> dict[str, BackboneCard]:
    """Return the card of each backbone that has one."""
    return {name: card(name) for name in registry.names("backbones")
            if name != "openclip"}  # fmt: skip
