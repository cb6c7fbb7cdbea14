"""The tables of a page in LaTeX (booktabs), each one page wide."""

from spar_bench.report import text
from spar_bench.report.page import Cell, Page, Table, Text

FILES = {"table.tex": "the tables above for LaTeX, with the package booktabs"}
PAGE_LETTERS, GAP_LETTERS = 105, 2.7
"""Letters per line of a two-column page in small type, and the width of a column gap."""


def render(page: Page) -> dict[str, str]:
    """Return the tables, labelled `tab:<experiment>-<number>`, with their notes as captions."""
    tables = [block for block in page.blocks if isinstance(block, Table)]
    written = [
        to_latex(table, f"{page.experiment}-{number}", note=_notes(page, table))
        for number, table in enumerate(tables, 1)
    ]
    return {"table.tex": "\n\n".join(["% Needs \\usepackage{booktabs}.", *written]) + "\n"}


def to_latex(table: Table, label: str, *, note: str) -> str:
    """Write a table; it needs the package booktabs."""
    columns = "l" * table.n_text + "r" * (len(table.headers) - table.n_text)
    caption = " ".join(filter(None, [f"{text.latex(table.caption)}.", text.latex(note)]))
    lines = [
        r"\begin{table*}[t]", r"\centering", _size(table),
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{text.file_name(label)}}}",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule",
        *_group_header(table.groups),
        " & ".join(map(text.latex, table.headers)) + r" \\", r"\midrule",
        *(" & ".join(map(_cell, row)) + r" \\" for row in table.rows),
        r"\bottomrule", r"\end{tabular}", r"\end{table*}",
    ]  # fmt: skip
    return "\n".join(lines)


def _notes(page: Page, table: Table) -> str:
    """Return the notes that follow a table, perhaps after other tables."""
    blocks = page.blocks[page.blocks.index(table) :]
    while blocks and isinstance(blocks[0], Table):
        blocks = blocks[1:]
    notes = []
    for block in blocks:
        if not (isinstance(block, Text) and block.role == "note"):
            break
        notes.append(block.text)
    return " ".join(notes)


def _size(table: Table) -> str:
    """Return the font size and column gap at which a table fits a page."""
    rows = [table.headers, *([" ".join([c.line, *c.spread]) for c in row] for row in table.rows)]
    n_letters = sum(max(map(len, column)) for column in zip(*rows, strict=True))
    is_wide = n_letters + GAP_LETTERS * len(table.headers) > PAGE_LETTERS
    return r"\scriptsize\setlength{\tabcolsep}{4pt}" if is_wide else r"\small"


def _group_header(groups: list[tuple[str, int]]) -> list[str]:
    """Return the header above the headers, with a rule under each group; empty without groups."""
    if not any(name for name, _ in groups):
        return []
    cells, rules, at = [], [], 1
    for name, width in groups:
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{text.latex(name)}}}")
        if name:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    return [" & ".join(cells) + r" \\", "".join(rules)]


def _cell(cell: Cell) -> str:
    written = text.latex(cell.line)
    written = rf"\textbf{{{written}}}" if cell.is_best else written
    return " ".join([written, *map(text.latex, cell.spread)])
