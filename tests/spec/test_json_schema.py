"""The JSON Schema that editors use: its file is up to date, and as strict as the reader."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from spar_bench.spec.json_schema import FILE, json_schema, text
from spar_bench.spec.starter import write_starter
from tests.spec.conftest import Read

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.yaml"))


def mistakes(content: str) -> list[str]:
    """Return what the schema finds wrong in a spec."""
    document: Any = YAML(typ="safe", pure=True).load(content)
    validator = jsonschema.Draft202012Validator(json_schema())
    return [error.message for error in validator.iter_errors(document)]


def test_the_committed_schema_is_what_the_models_say() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run: python -m spar_bench.spec"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_schema_accepts_what_is_shipped(path: Path) -> None:
    assert mistakes(path.read_text(encoding="utf-8")) == []


def test_the_schema_accepts_the_starter(tmp_path: Path) -> None:
    path = tmp_path / "first.yaml"
    write_starter(path)

    assert mistakes(path.read_text(encoding="utf-8")) == []


def test_editors_find_the_schema_beside_the_starter(tmp_path: Path) -> None:
    write_starter(tmp_path / "first.yaml")

    first_line = (tmp_path / "first.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=spec.schema.json"
    assert (tmp_path / "spec.schema.json").read_bytes() == FILE.read_bytes()


def test_the_schema_accepts_shorthands_and_what_they_stand_for(read: Read) -> None:
    content = """
backbone: patchwork
images: {source: {name: patchwork}}
evaluate: {datasets: [patchwork, {name: folder, path: x}], templates: ["a {}"]}
teacher: {upsample: 2}
"""
    assert mistakes(content) == []
    assert read(content).spec.teacher.upsample == 2


@pytest.mark.parametrize(
    "content",
    [
        "stride_px: 3",
        "teacher: {strid_px: 3}",
        "teacher: {stride_px: 0}",
        "teacher: {upsample: twice}",
        "student: {trainable: last_0_blocks}",
        "student: {learning_rate: 0}",
        "images: {crop: 2}",
        "images: {short_side_px: [1, 2, 3]}",
        "evaluate: {methods: [techer]}",
        "evaluate: {short_side_px: []}",
        "evaluate: {templates: a photo}",
        "seeds: []",
        "sweep: [{grid: {stride_px: [1]}}]",
        "sweep: [{grid: {teacher.stride_px: []}}]",
        "sweep: [{cases: [{stride_px: 1}]}]",
        "sweep: [{search: {space: {teacher: {choices: [1]}}}}]",
        "sweep: [{search: {space: {teacher.stride_px: {low: 1}}}}]",
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(content: str) -> None:
    assert mistakes(content) != []
