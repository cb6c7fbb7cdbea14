"""Arguments and options shared by several commands, and how numbers are shown."""

import os
import textwrap
from pathlib import Path
from typing import Any

import click

from spar_bench.cli.completion import spec_files

LINE_CHARACTERS, FEWEST_CHARACTERS = 80, 20


class HomePath(click.Path):
    """A path as typed, with `~` read as the home folder, which a quoted one still has."""

    def __init__(self, *, path_type: type[Any] = Path, **checks: bool) -> None:
        super().__init__(path_type=path_type, **checks)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Return the path once it passes its checks."""
        return super().convert(os.path.expanduser(value), param, ctx)


spec_argument = click.argument("spec", type=HomePath(), shell_complete=spec_files)
store_option = click.option(
    "--store",
    type=HomePath(),
    default=Path(".spar_bench"),
    show_default=True,
    help="Folder of finished work.",
)
tracking_option = click.option(
    "--tracking-uri",
    metavar="URI",
    help="MLflow store  [default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db here]",
)
seeds_option = click.option(
    "--seeds",
    "n_seeds",
    type=click.IntRange(min=1),
    metavar="N",
    help="Seeds 0 to N - 1 instead of the spec's.",
)


def span(seconds: float) -> str:
    """Return a readable duration: 8 s, 3 min, 1 h 40 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(n_bytes: float) -> str:
    """Return a number of bytes with its unit."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 stage, 2 stages."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def table(header: list[str], rows: list[list[str]], *, right: str = "") -> str:
    """Return aligned columns as plain text; `right` has an `r` for each right-aligned column.

    A last column of sentences is wrapped where that keeps lines within 80 characters.
    """
    cells = [line for row in [header, *rows] for line in _wrapped(row, [header, *rows])]
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


def _wrapped(row: list[str], cells: list[list[str]]) -> list[list[str]]:
    """Return a row as lines, its last cell wrapped if the table is too wide and there is room."""
    before = sum(max(len(one[i]) for one in cells) + 2 for i in range(len(row) - 1))
    room = LINE_CHARACTERS - before
    if room < FEWEST_CHARACTERS:
        return [row]
    lines = textwrap.wrap(row[-1], room, break_long_words=False, break_on_hyphens=False)
    first, *more = lines or [""]
    return [[*row[:-1], first], *([*[""] * (len(row) - 1), line] for line in more)]
