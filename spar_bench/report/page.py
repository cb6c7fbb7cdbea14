"""A report as data: a page is a list of blocks, which renderers turn into files.

All text is plain; a renderer escapes it.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Heading:
    """A title; level 1 is the page's own."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Quote:
    """The question that the experiment asks."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text; a warning stands out."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Note:
    """What a reader of the tables before it must know."""

    text: str


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
class Remark:
    """An item of a list."""

    text: str


@dataclass(frozen=True)
class Data:
    """A table for programs: values by column, None for an empty cell."""

    file: str
    about: str
    columns: list[str]
    rows: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Document:
    """A JSON document for programs."""

    file: str
    about: str
    value: Any = field(repr=False)


@dataclass(frozen=True)
class Link:
    """A file beside the page that a renderer writes."""

    file: str
    about: str


Block = Heading | Quote | Paragraph | Note | Table | Figure | Remark | Data | Document | Link


@dataclass(frozen=True)
class Page:
    """The report of an experiment."""

    experiment: str
    blocks: list[Block]
