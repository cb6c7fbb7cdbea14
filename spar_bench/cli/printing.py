"""How numbers and tables are printed."""

import textwrap

LINE_CHARACTERS, FEWEST_CHARACTERS = 80, 20


def span(seconds: float) -> str:
    """Return a readable duration: 8 s, 3 min, 1 h 40 min, 2.5 days."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds > 48 * 3600:
        return f"{seconds / 86400:.1f} days"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 stage, 2 stages."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def table(header: list[str], rows: list[list[str]], right: str = "") -> str:
    """Return aligned columns as plain text; `right` has an `r` for each right-aligned column.

    A last column of sentences is wrapped where that keeps lines within 80 characters.
    """
    all_rows = [header, *rows]
    before = sum(max(len(row[i]) for row in all_rows) + 2 for i in range(len(header) - 1))
    cells = [line for row in all_rows for line in _wrapped(row, LINE_CHARACTERS - before)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    flush = right.ljust(len(header), "l")
    lines = (
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(row, widths, flush, strict=True)
        ).rstrip()
        for row in cells
    )
    return "\n".join(lines)


def _wrapped(row: list[str], room: int) -> list[list[str]]:
    """Return a row as lines, its last cell wrapped if it has room to be."""
    if room < FEWEST_CHARACTERS:
        return [row]
    lines = textwrap.wrap(row[-1], room, break_long_words=False, break_on_hyphens=False)
    first, *more = lines or [""]
    return [[*row[:-1], first], *([*[""] * (len(row) - 1), line] for line in more)]


def indented(text: str) -> str:
    """Wrap a text at spaces only, so that file names and addresses stay whole."""
    return textwrap.fill(
        text,
        LINE_CHARACTERS,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
