"""The page in Markdown, and its tables alone."""

import itertools
from collections.abc import Iterable

from spar_bench.report import text
from spar_bench.report.page import (
    Block,
    Cell,
    Chart,
    Figure,
    File,
    Heading,
    Page,
    Role,
    Table,
    Text,
)

FILES = {"table.md": "the tables above"}
Printed = Heading | Text | Table | Figure | File
_TEXT = {"question": "> {}", "paragraph": "{}", "warning": "**{}**", "note": "{}", "remark": "- {}"}


def render(page: Page) -> dict[str, str]:
    """Return the page, which links figures and data as files beside it, and its tables alone."""
    shown = [block for block in page.blocks if not isinstance(block, Chart)]  # figures show it
    tables = {f"{file}.md": _join(blocks) for file, blocks in page.tables().items()}
    return {"README.md": _join(shown), **tables}


def _join(blocks: Iterable[Printed]) -> str:
    parts = [
        ("\n" if is_list else "\n\n").join(map(_markdown, group))
        for is_list, group in itertools.groupby(
            blocks, lambda block: isinstance(block, File) or _is(block, "remark")
        )
    ]
    return "\n\n".join(parts) + "\n"


def _is(block: Block, role: Role) -> bool:
    return isinstance(block, Text) and block.role == role


def _markdown(block: Printed) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {text.markdown(block.text)}"
        case Text():
            return _TEXT[block.role].format(text.markdown(block.text))
        case Table():
            return to_markdown(block)
        case Figure():
            name = block.name
            links = f"[SVG]({name}.svg) [PDF]({name}.pdf)"
            return f"![{name}]({name}.png)\n\n{text.markdown(block.caption)} {links}"
        case File():
            return f"- [{block.name}]({block.name}): {text.markdown(block.about)}"


def to_markdown(table: Table) -> str:
    """Write a table, with the column groups in the headers."""
    spread = [name for name, width in table.groups for _ in range(width)]
    headers = [
        f"{header}, {group}" if group else header
        for header, group in zip(table.headers, spread, strict=True)
    ]
    right = len(headers) - table.n_text
    lines = [
        f"**{text.markdown(table.caption)}**",
        "",
        "| " + " | ".join(map(text.markdown, headers)) + " |",
        "|" + " --- |" * table.n_text + " --: |" * right,
    ]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in table.rows]
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    written = f"**{cell.text}**" if cell.is_best else text.markdown(cell.line)
    return " ".join([written, *cell.spread])
