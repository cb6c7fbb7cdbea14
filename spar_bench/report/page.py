"""A report as data: a page is a list of blocks, which renderers turn into files.

All text is plain; a renderer escapes it.
"""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Heading:
    """A title; level 1 is the page's own."""

    text: str
    level: int = 2


Role = Literal["question", "paragraph", "warning", "note", "remark"]
"""What a text is: a note explains the tables before it, a remark is an item of a list."""


@dataclass(frozen=True)
class Text:
    """A line or paragraph."""

    text: str
    role: Role = "paragraph"


@dataclass(frozen=True)
class Cell:
    """The content of a table cell: text, or a mean with its sd and n."""

    text: str
    sd: str | None = None
    n: int = 1
    note: str = ""
    is_best: bool = False

    @property
    def spread(self) -> list[str]:
        """What follows a mean: its sd, and in brackets n and what is missing."""
        notes = [f"n = {self.n}"] if self.n > 1 or self.note else []
        notes += [self.note] if self.note else []
        spread = [f"± {self.sd}"] if self.sd else []
        return spread + ([f"({', '.join(notes)})"] if notes else [])


@dataclass(frozen=True)
class Table:
    """A caption, groups of columns (name, width), headers, and rows of cells.

    The first `n_text` columns hold text, the others numbers.
    """

    caption: str
    groups: list[tuple[str, int]]
    headers: list[str]
    rows: list[list[Cell]]
    n_text: int


@dataclass(frozen=True)
class Figure:
    """A figure, drawn beside the page as `<name>.png` and `<name>.svg`."""

    name: str
    caption: str


@dataclass(frozen=True)
class File:
    """A file beside the page, and what it is about; as it is, a renderer writes it."""

    name: str
    about: str


@dataclass(frozen=True)
class Data(File):
    """A table for programs: values by column, None for an empty cell."""

    columns: list[str]
    rows: list[dict[str, object]] = field(repr=False)


@dataclass(frozen=True)
class Document(File):
    """A JSON document for programs."""

    value: Any = field(repr=False)


Block = Heading | Text | Table | Figure | File


@dataclass(frozen=True)
class Page:
    """The report of an experiment."""

    experiment: str
    blocks: list[Block]
