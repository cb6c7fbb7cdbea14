"""Shipped specs with seeded mistakes: each is read or refused in lines, never a traceback."""

import random
import re
import time
from pathlib import Path

import pytest

from spar_bench.conflicts import read_spec
from spar_bench.errors import SpecError

ROOT = Path(__file__).parents[2]
TEXTS = [path.read_text("utf-8") for path in sorted((ROOT / "experiments").rglob("*.yaml"))]
N_SPECS, MAX_CPU_S = 200, 3.0
VALUES = [
    "!!int x", "!!float", "!!bool maybe", "!!set {a, b}", "!!binary aGk=", "0o9", "0x_", "0b",
    "007", "1:30", "1_0", "9" * 5000, "1e308", "-1e308", ".nan", "-.inf", "1000000000", "-1", "0",
    "0.5", "null", "true", "[]", "{}", "[[1]]", "{a: {b: 1}}", "{<<: [1, 2]}", "<<", "&a [*a]",
    "*b", "? x", '"\\0"', '"\\ud800"', '"\\U00110000"', "a" * 5000, '"${MISSING}"',
    '"${BIG}${BIG}"', "'${NAME}'", "2024-13-99", "own", "student", "[0, 0]", "[1, 1.0]", "é", "%",
    "@", "`",
]  # fmt: skip


def mutated(text: str, draw: random.Random) -> str:
    """Return a spec with one to three mistakes in it."""
    for _ in range(draw.randint(1, 3)):
        lines = text.splitlines(keepends=True)
        n = draw.randrange(len(lines))
        kind = draw.choice(["value", "value", "value", "key", "delete", "repeat", "swap", "cut"])
        if kind in ("value", "key"):
            words = list(
                re.finditer(r"[\w.]+(?=:)" if kind == "key" else r"(?<=[:,\[] )[\w.]+", text)
            )
            if not words:  # cut off before any
                continue
            word = draw.choice(words)
            text = text[: word.start()] + draw.choice(VALUES) + text[word.end() :]
        elif kind == "cut":
            text = text[: draw.randrange(1, len(text))]
        else:
            other = draw.randrange(len(lines))
            changed = {"delete": "", "repeat": lines[n] * 2, "swap": lines[other]}
            lines[n] = changed[kind]
            text = "".join(lines) or "a"
    return text


def outcome(path: Path) -> list[str]:
    """Return the lines that refuse a spec; none if it is valid."""
    try:
        read_spec(path, environ={"BIG": "x" * 600_000, "NAME": "a\udcff"})
    except SpecError as error:
        return str(error).splitlines()
    return []


def test_mutated_specs_are_read_or_refused_in_lines_and_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw, path, n_valid = random.Random(9), Path("spec.yaml"), 0
    for _ in range(N_SPECS):
        path.write_text(mutated(draw.choice(TEXTS), draw), encoding="utf-8")
        started = time.process_time()
        lines = outcome(path)

        assert time.process_time() - started < MAX_CPU_S
        assert all(re.match(r"spec\.yaml(:\d+:\d+)?: .*must ", line) for line in lines)
        assert all(len(line) < 1000 for line in lines)
        n_valid += not lines

    assert 20 < n_valid < 150
