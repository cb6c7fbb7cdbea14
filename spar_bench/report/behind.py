"""The paper's numbers in a figure: hollow grey marks behind ours."""

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from spar_bench.published import Published, published
from spar_bench.report.aggregates import Aggregate
from spar_bench.report.paper import matched_mious
from spar_bench.report.style import Mark
from spar_bench.results import Results

PAPER = "paper"
"""What a legend calls them, and the gid of their lines."""
COLOR = "#8a8a8a"
WIDER_PT = 1.8
"""By how much they are wider than ours, so that one on which ours lies is seen."""


def numbers_behind(results: Results, aggregates: Iterable[Aggregate]) -> list[Published]:
    """Return the numbers of the table that a spec names, if an mIoU of it is about `aggregates`."""
    ours = {key for each in aggregates for key in each.evaluations}
    if any(row.stages.get("evaluate") in ours for _, row in matched_mious(results)):
        return published(results.reproduces or "")
    return []


def draw_behind(axes: Axes, x: Sequence[float], y: Sequence[float], own: Mark, line: str) -> None:
    """Draw numbers of the paper in the shape of `own`, on a line of that style."""
    axes.plot(
        x, y, linestyle=line, color=COLOR, linewidth=0.6, marker=own.marker,
        markersize=own.size + WIDER_PT, markerfacecolor="none", markeredgecolor=COLOR,
        markeredgewidth=0.7, zorder=1.6, gid=PAPER, clip_on=False,
    )  # fmt: skip


def paper_handle() -> Line2D:
    """Return the entry of the paper's numbers in a legend."""
    return Line2D(
        [], [], color=COLOR, linewidth=0.6, marker="o", markersize=6.0,
        markerfacecolor="none", markeredgecolor=COLOR, markeredgewidth=0.7,
    )  # fmt: skip
