"""A figure as it is planned: drawn only when a report is written."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from spar_bench.report.page import Table


@dataclass(frozen=True)
class FigurePlan:
    """A figure to be drawn: its file name without an ending, and what it shows, also as numbers."""

    name: str
    caption: str
    draw: Callable[[], Figure]
    numbers: Table | None = None
