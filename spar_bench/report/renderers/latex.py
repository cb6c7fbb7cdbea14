"""The tables of a page in LaTeX (booktabs), each one page wide, as they can be submitted.

A caption is short: what the table is of, what its numbers are, and of how many seeds they are,
unless a cell says otherwise. All else that explains a table is a comment above it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from spar_bench.report import text
from spar_bench.report.page import Cell, Page, Table, Text

FILES = {"table.tex": "the tables above for LaTeX, with the package booktabs"}
PAGE_LETTERS, COLUMN_LETTERS, GAP_LETTERS = 105, 40, 2.7
"""Letters per line of a two-column page in small type, at most in a column, and in a column gap."""


def render(page: Page) -> dict[str, str]:
    """Return the tables of each file, with their notes as comments.

    They are labelled `tab:<experiment>-<number>`, those of `claims.tex`
    `tab:<experiment>-claims-<number>`.
    """
    return {f"{file}.tex": _file(page, file, blocks) for file, blocks in page.tables().items()}


def _file(page: Page, file: str, blocks: Iterable[Table | Text]) -> str:
    name = page.experiment if file == Table.file else f"{page.experiment}-{file}"
    tables = [block for block in blocks if isinstance(block, Table)]
    written = [
        to_latex(table, f"{name}-{number}", notes=_notes(page, table))
        for number, table in enumerate(tables, 1)
    ]
    return "\n\n".join(["% Needs \\usepackage{booktabs}.", *written]) + "\n"


def to_latex(table: Table, label: str, *, notes: list[str]) -> str:
    """Write a table; it needs the package booktabs."""
    columns = "".join(_alignments(table))
    n_seeds = _seeds_of_most(table)
    comments = [table.caption] if table.title not in ("", table.caption) else []
    lines = [
        *(f"% {text.one_line(comment)}" for comment in (*comments, *notes)),
        r"\begin{table*}[t]", r"\centering", _size(table, n_seeds),
        rf"\caption{{{_caption(table, n_seeds)}}}",
        rf"\label{{tab:{text.file_name(label)}}}",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}", r"\toprule",
        *_group_header(table.groups),
        " & ".join(map(text.latex, table.headers)) + r" \\", r"\midrule",
        *(f"{_row(row, n_seeds)} \\\\" for row in table.rows),
        r"\bottomrule", r"\end{tabular}", r"\end{table*}",
    ]  # fmt: skip
    return "\n".join(lines)


def _alignments(table: Table) -> Iterator[str]:
    """Yield how each column is set: numbers to the right, long text in lines."""
    for number, cells in enumerate(zip(*table.rows, strict=True)):
        if number >= table.n_text:
            yield "r"
        elif any(len(cell.line) > COLUMN_LETTERS for cell in cells):
            yield rf"p{{{COLUMN_LETTERS / PAGE_LETTERS:.2f}\textwidth}}"
        else:
            yield "l"


def _caption(table: Table, n_seeds: int) -> str:
    cells = [cell for row in table.rows for cell in row if cell.sd is not None]
    others = ", unless a cell says otherwise" if any(cell.n != n_seeds for cell in cells) else ""
    seeds = f"± is one standard deviation over n = {n_seeds} seeds{others}." if cells else ""
    title = f"{table.title or table.caption}."
    return " ".join(text.latex(part) for part in (title, table.legend, seeds) if part)


def _seeds_of_most(table: Table) -> int:
    """Return the number of seeds that most cells with a spread are of; 1 if there are none."""
    counts = Counter(cell.n for row in table.rows for cell in row if cell.sd is not None)
    return max(counts, key=lambda n: (counts[n], n), default=1)


def _notes(page: Page, table: Table) -> list[str]:
    """Return the notes that follow a table, perhaps after other tables."""
    blocks = page.blocks[page.blocks.index(table) :]
    while blocks and isinstance(blocks[0], Table):
        blocks = blocks[1:]
    notes = []
    for block in blocks:
        if not (isinstance(block, Text) and block.role == "note"):
            break
        notes.append(block.text)
    return notes


def _size(table: Table, n_seeds: int) -> str:
    """Return the font size and column gap at which a table fits a page."""
    cells = [[" ".join([cell.line, *_spread(cell, n_seeds)]) for cell in row] for row in table.rows]
    n_letters = sum(
        min(COLUMN_LETTERS, max(map(len, column)))
        for column in zip(table.headers, *cells, strict=True)
    )
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


def _spread(cell: Cell, n_seeds: int) -> list[str]:
    """Return what follows a mean: its sd; in brackets n if the caption has another, and a note."""
    if cell.n == n_seeds and not cell.note:
        return cell.deviation
    return cell.spread


def _row(cells: list[Cell], n_seeds: int) -> str:
    """Return the cells of a row; after a line break, `[` or `*` would be read as its option."""
    row = " & ".join(_cell(cell, n_seeds) for cell in cells)
    return f"{{}}{row}" if row.startswith(("[", "*")) else row


def _cell(cell: Cell, n_seeds: int) -> str:
    written = text.latex(cell.line)
    written = rf"\textbf{{{written}}}" if cell.is_best else written
    return " ".join([written, *map(text.latex, _spread(cell, n_seeds))])
