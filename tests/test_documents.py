"""Documents name files that exist, and show what can be read."""

import re
from pathlib import Path

import pytest

from spar_bench.conflicts import read_spec

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/**/*.md")]
FILE = re.compile(
    r"`((?:spar_bench|tests|docs|experiments|recipes|stages|plan|run|spec)/[\w./-]+)`"
)
OF_A_USER = re.compile(r"NAME|KIND|mine|/first\.yaml")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    named = FILE.findall(document.read_text(encoding="utf-8"))

    ours = [path for path in named if not OF_A_USER.search(path)]
    gone = [p for p in ours if not (ROOT / p).exists() and not (ROOT / "spar_bench" / p).exists()]
    assert gone == []


def test_the_claims_that_are_shown_can_be_made_of_the_shipped_strides(tmp_path: Path) -> None:
    page = (ROOT / "docs/claims.md").read_text(encoding="utf-8")
    [shown, named] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    spec = (ROOT / "experiments/stride.yaml").read_text(encoding="utf-8")
    path = tmp_path / "stride.yaml"
    path.write_text(f"{shown}{spec}", encoding="utf-8")

    claims = read_spec(path).claims

    assert [(one.form, one.quantity, one.expected) for one in claims] == [
        ("difference", "miou", 0.105),
        ("ratio", "gflops", 9.0),
    ]
    [[student], _] = claims[0].sides
    assert list(student.groups) == ["trainable=last_2_blocks,checkpoint=patchwork-spar"]
    assert named.startswith("reproduces: main_table")
