"""A figure as it is planned: drawn only when a report is written."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from spar_bench.report import page


@dataclass(frozen=True)
class FigurePlan:
    """A figure to be drawn: its file name without an ending, and what it shows."""

    name: str
    caption: str
    draw: Callable[[], Figure]

    @property
    def block(self) -> page.Figure:
        """The figure as a block of the page."""
        return page.Figure(self.name, self.caption)
