"""The tables of paired differences, in points of mIoU, and what a reader must know of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from spar_bench.accuracy import Difference
from spar_bench.report import text
from spar_bench.report.columns import NOT_PART
from spar_bench.report.differences import FEW_SEEDS, Comparison
from spar_bench.report.page import Block, Cell, Heading, Source, Table, Text
from spar_bench.report.series import Axis

MOST_LINES = 60
"""Lines of a table on the page; differences.csv has all."""

_FEW = "‡"
_LEGEND = (
    "Differences of mIoU in points; intervals over images by paired bootstrap, over seeds by "
    "paired t."
)
_FEW_LEGEND = f" {_FEW} Fewer than {FEW_SEEDS} seeds."
_NOTE = (
    "Interval over images: paired bootstrap, in which each resample draws the same images for "
    "both; where a student has several seeds, their mIoU is averaged. "
)
_SEEDS_NOTE = (
    "Interval over seeds: paired t interval, seed by seed, with n - 1 degrees of freedom. Each is "
    "95 %, and neither contains what the other covers. "
)
_FEW_NOTE = (
    f"{_FEW} Few seeds (under {FEW_SEEDS}): the interval assumes normal differences and is itself "
    "uncertain. "
)


@dataclass(frozen=True)
class _Part:
    """A column: header, cell, and whether it may be said in the caption if all cells agree.

    `value` is the number by which lines are sorted.
    """

    header: str
    cell: Callable[[Comparison], str]
    is_text: bool = False
    caption: str = ""
    value: Callable[[Comparison], float] | None = None


_COLUMNS = [
    _Part("Data set", lambda each: each.a.panel.dataset, True, "{}"),
    _Part("Short side (px)", lambda each: str(each.a.panel.eval_short_side_px), True,
          "short side {} px"),
    _Part("Swept", lambda each: Axis(each.swept, ()).title, True, "swept: {}"),
    _Part("a", lambda each: each.names[0], True),
    _Part("b", lambda each: each.names[1], True),
    _Part("a - b (points of mIoU)", lambda each: text.points(each.over_images.value),
          value=lambda each: each.over_images.value),
    _Part("95 % interval over images", lambda each: _interval(each.over_images)),
    _Part("Images", lambda each: str(each.n_images), False, "{} images"),
    _Part("95 % interval over seeds", lambda each: _interval(each.over_seeds)),
    _Part("Seeds", lambda each: _seeds(each), False, "{} seeds"),
]  # fmt: skip


def difference_blocks(compared: list[Comparison]) -> Iterator[Block]:
    """Yield the tables of differences between methods and along what was swept, if there are any.

    What is the same in all lines is said in the caption; what no line has is left out.
    """
    tables = [
        ("Paired differences", [each for each in compared if not each.swept]),
        ("Paired differences along the sweep", [each for each in compared if each.swept]),
    ]
    tables = [(subject, each) for subject, each in tables if each]
    if tables:
        yield Heading("Differences")
        yield from (_table(subject, each) for subject, each in tables)
        yield Text(_note(compared), "note")
        for subject, each in tables:
            if len(each) > MOST_LINES:
                told = f"{subject}: the first {MOST_LINES} of {len(each)} lines"
                yield Text(f"{told}; differences.csv has all.", "note")


def _table(subject: str, compared: list[Comparison]) -> Table:
    parts, stated = list[_Part](), list[str]()
    for part in _COLUMNS:
        cells = {part.cell(each) for each in compared}
        if cells in ({""}, {NOT_PART.text}):
            continue
        if part.caption and len(cells) == 1 and (part.is_text or len(compared) > 1):
            stated.append(part.caption.format(*cells))
        else:
            parts.append(part)
    n_text = sum(part.is_text for part in parts)
    return Table(
        caption=": ".join(filter(None, [subject, ", ".join(stated)])),
        groups=[("", len(parts))],
        headers=[part.header for part in parts],
        rows=[[_cell(part, each) for part in parts] for each in compared[:MOST_LINES]],
        n_text=n_text,
        legend=_LEGEND + (_FEW_LEGEND if any(map(_is_few, compared)) else ""),
    )


def _cell(part: _Part, each: Comparison) -> Cell:
    if part.value is None:
        return Cell(part.cell(each))
    source = Source("miou", each.a.rows + each.b.rows)
    return Cell(part.cell(each), value=part.value(each), source=source)


def _note(compared: list[Comparison]) -> str:
    has_seeds = any(each.over_seeds is not None for each in compared)
    has_few = any(_is_few(each) for each in compared)
    along = (
        "Along the sweep, each value is compared with the first of its key, all else equal."
        if any(each.swept for each in compared)
        else ""
    )
    parts = [_NOTE, _SEEDS_NOTE if has_seeds else "", _FEW_NOTE if has_few else "", along]
    return "".join(parts).strip()


def _interval(difference: Difference | None) -> str:
    if difference is None:
        return NOT_PART.text
    return f"{text.points(difference.low)} to {text.points(difference.high)}"


def _seeds(comparison: Comparison) -> str:
    if comparison.n_seeds == 0:
        return NOT_PART.text
    return f"{comparison.n_seeds}{_FEW}" if _is_few(comparison) else str(comparison.n_seeds)


def _is_few(comparison: Comparison) -> bool:
    """Tell whether an interval over seeds is of few."""
    return comparison.over_seeds is not None and comparison.n_seeds < FEW_SEEDS
