"""A renderer is found by its file or its entry point, and no other file knows it."""

import sys
from pathlib import Path

import pytest

from spar_bench.report import write
from spar_bench.report.renderers import renderers
from tests.report.synthetic import InMemory, results_of, row

PLAIN = """\
from spar_bench.report.page import Heading, Table, Text

FILES = {"report.txt": "this page as plain text"}

def render(page):
    lines = []
    for block in page.blocks:
        match block:
            case Heading() | Text(role="question"):
                lines.append(block.text)
            case Table():
                lines += [" ".join(cell.text for cell in row) for row in block.rows]
    return {"report.txt": "\\n".join(lines)}
"""
ENTRY_POINT = "[spar_bench.renderers]\nplain = plain_text_renderer\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution of one file, a renderer of plain text."""
    (tmp_path / "plain_text_renderer.py").write_text(PLAIN)
    info = tmp_path / "plain-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plain_text_renderer", raising=False)


@pytest.mark.usefixtures("installed")
def test_renderer_of_another_package_writes_its_file_and_the_page_links_it(tmp_path: Path) -> None:
    failed = row("pretrained", None, status="failed")

    written, _ = write(results_of([failed], question="Why?"), InMemory(), tmp_path / "report")

    folder = tmp_path / "report"
    assert folder / "report.txt" in written
    assert (folder / "report.txt").read_text().splitlines()[:4] == [
        "stride", "Why?", "Results", "single pass failed 1 0.900 7.20 6.84–7.92 240 1.30",
    ]  # fmt: skip
    page = (folder / "README.md").read_text()
    assert "- [report.txt](report.txt): this page as plain text\n" in page


def test_renderers_of_this_package_are_its_files() -> None:
    names = [vars(renderer)["__name__"].rpartition(".")[2] for renderer in renderers()]

    folder = Path(sys.modules["spar_bench.report.renderers"].__path__[0])
    assert names == sorted(path.stem for path in folder.glob("[!_]*.py"))
    assert names == ["data", "html", "latex", "markdown"]
