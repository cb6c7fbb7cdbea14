"""The page in Markdown, compared with its whole text."""

from spar_bench.report.page import Cell, Data, Document, Figure, File, Heading, Page, Table, Text
from spar_bench.report.renderers.markdown import render, to_markdown

PAGE = """\
# a\\_b

> Does it / hold?

**Some weights are random.**

**Accuracy: 50 \\< 60**

| Method | mIoU (%), voc |
| --- | --: |
| single pass | **38.3** ± 0.4 (n = 3, 1 failed) |

A \\*note\\*.

![per_class](per_class.png)

IoU of each class. [SVG](per_class.svg) [PDF](per_class.pdf)

## Remarks

- one
- two

## Files

- [results.csv](results.csv): rows
- [provenance.json](provenance.json): origins
- [table.tex](table.tex): LaTeX
"""


def test_blocks_become_markdown_in_their_order_with_text_escaped() -> None:
    cells = [Cell("single pass"), Cell("38.3", 0.004, 3, "1 failed", is_best=True)]
    page = Page(
        "a_b",
        [
            Heading("a_b", level=1),
            Text("Does it / hold?", "question"),
            Text("Some weights are random.", "warning"),
            Table("Accuracy: 50 < 60", [("", 1), ("voc", 1)], ["Method", "mIoU (%)"], [cells], 1),
            Text("A *note*.", "note"),
            Figure("per_class", "IoU of each class."),
            Heading("Remarks"),
            Text("one", "remark"),
            Text("two", "remark"),
            Heading("Files"),
            Data("results.csv", "rows", ["a"], []),
            Document("provenance.json", "origins", {}),
            File("table.tex", "LaTeX"),
        ],
    )

    written = render(page)

    assert written["README.md"] == PAGE
    assert written["table.md"] == "\n\n".join(PAGE.split("\n\n")[3:6]) + "\n"


def test_a_verdict_and_its_reason_are_one_line() -> None:
    verdict = Cell("not run", value=3, verdict="not_run", reason="no row of a_b")
    table = Table("Claims", [("", 2)], ["Claim", "Verdict"], [[Cell("x"), verdict]], n_text=2)

    assert to_markdown(table).splitlines()[-1] == "| x | not run: no row of a\\_b |"
