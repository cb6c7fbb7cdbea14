"""A report as data: a page is a list of blocks, which renderers turn into files.

All text is plain; a renderer escapes it. What only some renderers can show (the origin of a number,
a chart to explore, a figure's numbers) is there for them, and the others leave it out.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from spar_bench.report.text import percent
from spar_bench.report.verdicts import Word


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


class Source(NamedTuple):
    """Where a number comes from: its column in results.csv, and its rows, as indices."""

    column: str
    rows: tuple[int, ...]

    def after(self, n_rows: int) -> "Source":
        """Return the source where its rows stand after others, as on the page of a suite."""
        return Source(self.column, tuple(n_rows + row for row in self.rows))


@dataclass(frozen=True)
class Cell:
    """The content of a table cell: text, or a mean with its sd (a fraction) and n.

    `value` is the number that the text rounds, by which rows are sorted. A text that is a `verdict`
    may be coloured, and followed by its `reason`.
    """

    text: str
    sd: float | None = None
    n: int = 1
    note: str = ""
    is_best: bool = False
    value: float | None = None
    source: Source | None = None
    verdict: Word | None = None
    reason: str = ""

    @property
    def line(self) -> str:
        """The text with its reason, where both stand in one line."""
        return f"{self.text}: {self.reason}" if self.reason else self.text

    @property
    def spread(self) -> list[str]:
        """What follows a mean: its sd, and in brackets n and what is missing."""
        notes = [f"n = {self.n}"] if self.n > 1 or self.note else []
        notes += [self.note] if self.note else []
        return self.deviation + ([f"({', '.join(notes)})"] if notes else [])

    @property
    def deviation(self) -> list[str]:
        """The sd in percentage points, if there is one."""
        return [] if self.sd is None else [f"± {percent(self.sd)}"]


@dataclass(frozen=True)
class Table:
    """A caption, groups of columns (name, width), headers, and rows of cells.

    The first `n_text` columns hold text, the others numbers. In print, where a caption must be
    short, `title` and `legend`, which explains the numbers, replace the caption and the notes.
    Beside the page, it stands with others of the same `file` in `<file>.md` and `<file>.tex`.
    """

    caption: str
    groups: list[tuple[str, int]]
    headers: list[str]
    rows: list[list[Cell]]
    n_text: int
    title: str = ""
    legend: str = ""
    file: str = "table"


@dataclass(frozen=True)
class Figure:
    """A figure, drawn beside the page as `<name>.png`, `<name>.svg` and `<name>.pdf`.

    `svg` is the drawing with letters as text, `numbers` a table of what it shows, if there is one.
    """

    name: str
    caption: str
    svg: str = field(default="", repr=False)
    numbers: Table | None = None


class ChartAxis(NamedTuple):
    """A cost to choose as axis, and which conditions of a point its numbers depend on."""

    column: str
    title: str
    conditions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """An accuracy, a fraction, with what it cost by column, and its look in every figure.

    Points of one `series` share an entry of the legend, those of one `line` are joined; points of
    different `panel` are not comparable.
    """

    name: str
    method: str
    dataset: str
    panel: str
    series: str
    line: int | None
    color: str
    marker: str
    miou: float
    sd: float | None
    n: int
    costs: dict[str, float]
    conditions: dict[str, str]
    source: Source


@dataclass(frozen=True)
class Chart:
    """Accuracy against a cost that the reader chooses; the figures show some of them."""

    title: str
    axes: list[ChartAxis]
    points: list[Point]


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


Block = Heading | Text | Table | Figure | Chart | File


@dataclass(frozen=True)
class Page:
    """The report of an experiment, or of a suite; `origins` is what `origins.py` knows of rows."""

    experiment: str
    blocks: list[Block]
    origins: dict[str, Any] = field(default_factory=dict, repr=False)

    def tables(self) -> dict[str, list[Table | Text]]:
        """Return the tables of each file, and the notes after them."""
        found: dict[str, list[Table | Text]] = {"table": []}
        file = "table"
        for block in self.blocks:
            if isinstance(block, Table):
                file = block.file
                found.setdefault(file, []).append(block)
            elif isinstance(block, Text) and block.role == "note":
                found[file].append(block)
        return found
