"""How figures look: sizes of a two-column paper, colour-blind-safe colours, marks, facets."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from spar_bench.files import replace_bytes
from spar_bench.report import text
from spar_bench.report.aggregates import Aggregate
from spar_bench.report.fonts import families

COLUMN_IN = 3.3
PAGE_IN = 7.0
LINE_IN, LETTER_IN, HANDLE_IN = 0.135, 0.045, 0.33
"""Height of a line, width of a letter and of a handle in a legend."""
GREY = "#6b6b6b"
LIGHT = "#c4c4c4"

_RC: dict[str, object] = {
    "figure.dpi": 200,
    "savefig.dpi": 200,
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.2,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#e6e6e6",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "lines.linewidth": 1.0,
    "svg.fonttype": "none",  # letters stay letters: to be searched, read aloud and edited
    "svg.hashsalt": "spar-bench",
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
}
_WITHOUT_DATE: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


class Mark(NamedTuple):
    """Colour, marker and marker size (points) of an aggregate, the same in every figure."""

    color: str
    marker: str
    size: float


_PALETTE = sns.color_palette("colorblind").as_hex()
PRETRAINED = Mark("#404040", "s", 6.4)  # wider than the marks that may lie on it
DIVIDES = Mark(_PALETTE[0], "o", 4.6)
DOES_NOT_DIVIDE = Mark(_PALETTE[1], "D", 4.4)
STUDENTS = [
    Mark(_PALETTE[2], "^", 5.6),
    Mark(_PALETTE[4], "v", 5.6),
    Mark(_PALETTE[5], "P", 5.6),
    Mark(_PALETTE[9], "p", 5.6),
    Mark(_PALETTE[3], "X", 5.4),
    Mark("#5b4a9c", "h", 5.4),
]


def marks(aggregates: Iterable[Aggregate]) -> dict[str, Mark]:
    """Return the mark of each aggregate by label; too many students all share the first."""
    by_label = {aggregate.label: aggregate for aggregate in aggregates}
    students = [label for label, aggregate in by_label.items() if aggregate.method == "student"]
    few = len(students) <= len(STUDENTS)
    result = {label: STUDENTS[i if few else 0] for i, label in enumerate(students)}
    for label, aggregate in by_label.items():
        if aggregate.method == "pretrained":
            result[label] = PRETRAINED
        elif aggregate.method == "teacher":
            result[label] = DOES_NOT_DIVIDE if aggregate.divides_patch is False else DIVIDES
    return result


def marks_apart(shown: Iterable[Aggregate], aggregates: Iterable[Aggregate]) -> dict[str, Mark]:
    """Return the marks of those `shown`; students that would share one have one each if few."""
    shown, known = list(shown), marks(aggregates)
    students = list(dict.fromkeys(each.label for each in shown if each.method == "student"))
    found = {each.label: known[each.label] for each in shown}
    if len({found[label] for label in students}) < len(students) <= len(STUDENTS):
        found |= dict(zip(students, STUDENTS, strict=False))
    return found


def handle(
    mark: Mark,
    linestyle: Literal["-", ":", "none"],
    *,
    color: str | None = None,
    linewidth: float | None = None,
) -> Line2D:
    """Return the entry of a mark in a legend, on a line of a colour that may be another."""
    return Line2D(
        [], [], color=color or mark.color, linestyle=linestyle, linewidth=linewidth,
        marker=mark.marker, markersize=mark.size, markerfacecolor=mark.color,
        markeredgecolor="white", markeredgewidth=0.5,
    )  # fmt: skip


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure outside pyplot's global state, with constrained layout."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def facet_grid(
    n: int, height_in: float, *, above_in: float, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Return a new figure and its `n` axes: one column wide for one, two to a page for several."""
    columns = min(2, n)
    rows = math.ceil(n / columns)
    figure = new_figure((COLUMN_IN, PAGE_IN)[columns - 1], above_in + height_in * rows)
    facets = figure.subplots(rows, columns, squeeze=False, **shared).flatten()
    for unused in facets[n:]:
        unused.remove()
    return figure, list(facets[:n])


def draw_points(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    marked: Sequence[Mark],
    *,
    sds: Sequence[float | None],
    across: bool = False,
) -> None:
    """Draw marks at mIoU in percent, each with a bar of its sd (a fraction) along that axis.

    mIoU is `y`, or with `across` it is `x`. Those that look alike are drawn together: a thousand
    points apart would take most of a report's time.
    """
    alike: dict[tuple[Mark, bool], list[int]] = {}
    for at, (mark, sd) in enumerate(zip(marked, sds, strict=True)):
        alike.setdefault((mark, sd is None), []).append(at)
    for (mark, is_single), some in alike.items():
        spread = None if is_single else [100 * (sds[at] or 0.0) for at in some]
        drawn, *_ = axes.errorbar(
            [x[at] for at in some],
            [y[at] for at in some],
            xerr=spread if across else None,
            yerr=None if across else spread,
            color=mark.color,
            linestyle="none",
            marker=mark.marker,
            markersize=mark.size,
            markeredgecolor="white",
            markeredgewidth=0.5,
            elinewidth=0.8,
            capsize=1.8,
            zorder=4,
        )
        drawn.set_clip_on(False)  # whole even on the edge, as at 0 %


def legend_above(figure: Figure, handles: dict[str, Line2D], *, columns: int) -> None:
    """Write a legend above all axes, and make the figure taller by its height."""
    if not handles:
        return
    names = [text.plot(name, most=44) for name in handles]
    width, height = figure.get_size_inches()
    columns = min(columns, len(names))
    while columns > 1 and _legend_width_in(names, columns) > width:
        columns -= 1
    figure.set_size_inches(width, height + LINE_IN * math.ceil(len(names) / columns))
    figure.legend(list(handles.values()), names, loc="outside upper center", ncols=columns)


def _legend_width_in(names: list[str], columns: int) -> float:
    rows = math.ceil(len(names) / columns)
    widest = [max(map(len, names[at : at + rows])) for at in range(0, len(names), rows)]
    return sum(LETTER_IN * letters + HANDLE_IN for letters in widest)


def watermark(figure: Figure, warning: str) -> None:
    """Write a warning on its own line below the drawing, which keeps its size."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # everything moves up without a new layout
    width, height = figure.get_size_inches()
    higher = height + LINE_IN
    figure.set_size_inches(width, higher)
    bottom, share = LINE_IN / higher, height / higher
    for axes in figure.axes:
        left, low, across, up = axes.get_position(original=True).bounds
        axes.set_position((left, bottom + share * low, across, share * up))
    for drawn in figure.texts:
        drawn.set_y(bottom + share * drawn.get_position()[1])
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, bottom, 1, share))
    figure.text(0.995, 0.25 * bottom, warning, ha="right", va="baseline", color="firebrick")


@contextmanager
def house_style(names: Iterable[str] = ()) -> Iterator[None]:
    """Draw in the house style: everything made inside has its sizes and colours.

    `names` may have letters that need another font.
    """
    style: Any = {**sns.axes_style("ticks"), **_RC, "font.family": families(names)}
    with warnings.catch_warnings(), mpl.rc_context(style):
        # A name may have letters that no font has; a report says so once, not for each figure.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def save_as(draw: Callable[[], Figure], *paths: Path, names: Iterable[str] = ()) -> None:
    """Draw a figure in the house style and write it to `paths`, in the formats of their endings.

    `names` are those in it that may have letters of another font.

    Raises:
        StoreError: the disk is full, or a folder cannot be written.
    """
    with house_style(names):
        _write(_laid_out(draw()), paths)


def save_and_embed(draw: Callable[[], Figure], *paths: Path, names: Iterable[str] = ()) -> str:
    """Draw and write a figure as `save_as` does; return it as SVG.

    Raises:
        StoreError: the disk is full, or a folder cannot be written.
    """
    with house_style(names):
        written = _write(_laid_out(draw()), paths)
    return written[".svg"].decode()


def _laid_out(figure: Figure) -> Figure:
    """Place all parts of a figure once, instead of twice for each format."""
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
    figure.set_layout_engine(None)  # "none" would leave one for which each format draws twice
    return figure


def _write(figure: Figure, paths: Iterable[Path]) -> dict[str, bytes]:
    """Write a figure in the formats of the paths' endings; return its bytes by ending."""
    written = {path.suffix: _as_bytes(figure, path.suffix[1:]) for path in paths}
    for path in paths:
        replace_bytes(path, written[path.suffix])
    return written


def _as_bytes(figure: Figure, kind: str) -> bytes:
    # Without a date, the same results give the same file.
    metadata = _WITHOUT_DATE.get(f".{kind}", {})
    drawn = BytesIO()
    figure.savefig(drawn, format=kind, metadata=metadata)
    return drawn.getvalue()
