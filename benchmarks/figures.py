"""A measured ratio, the bar that it is held to, and how ratios are measured: in turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A ratio of two times of one run, or a share of the machine's roof.

    `bar` is the most that it may be, or with `at_least` the least; None if nothing is asked of it.
    `how` says what was measured, for a reader who wants to measure it again.
    """

    name: str
    value: float
    how: str
    bar: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Whether it keeps to its bar; "" without one."""
        if self.bar is None:
            return ""
        keeps = self.value >= self.bar if self.at_least else self.value <= self.bar
        return "ok" if keeps else "off"

    def __str__(self) -> str:
        """Show it in one line."""
        asked = "" if self.bar is None else f"{'>=' if self.at_least else '<='} {self.bar:g}"
        return f"{self.name:42} {self.value:8.3g}  {asked:9} {self.verdict:3}  {self.how}"


def in_turns(ways: Mapping[str, Callable[[], object]], *, rounds: int = 5) -> dict[str, float]:
    """Return the median seconds of each way, after a first time that does not count.

    Ways take turns, so that a machine that slows down slows all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for count in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if count:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}
