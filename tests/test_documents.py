"""Documents name files that exist."""

import re
from pathlib import Path

import pytest

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
