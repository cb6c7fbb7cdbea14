"""Our numbers beside those that the paper published: difference, interval over images, verdict."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from spar_bench.accuracy import interval_of
from spar_bench.published import Published, published
from spar_bench.report.measuring import (
    Resampler,
    mean_over_datasets,
    resampled_mious,
    source_of,
    why_unmeasured,
)
from spar_bench.report.page import Source
from spar_bench.report.verdicts import MARGIN, Verdict, of_published
from spar_bench.results import Matched, Results, Row

QUANTITIES = {"miou_percent": "miou", "seconds": "latency_p50_ms", "windows": "n_windows"}
_SCALES = {"miou_percent": 100.0, "seconds": 1e-3, "windows": 1.0}
"""What our quantity is multiplied with to be in the published one's unit."""


@dataclass(frozen=True)
class Beside:
    """A published number, and ours of one group in its unit; None where there is none.

    The 95 % interval is over images; `source` is that of ours.
    """

    published: Published
    verdict: Verdict
    group: str = ""
    ours: float | None = None
    interval: tuple[float, float] | None = None
    source: Source | None = None

    @property
    def difference(self) -> float | None:
        """Ours less the published one, in its unit."""
        return None if self.ours is None else self.ours - self.published.value


def beside_the_paper(results: Results, resampler: Resampler) -> list[Beside]:
    """Return each number of the table that a spec names beside ours, in the paper's order.

    A number that several groups are about is there once for each.
    """
    if results.reproduces is None:
        return []
    return [
        beside
        for number, one in enumerate(published(results.reproduces))
        for beside in _of(number, one, results, resampler)
    ]


def matched_mious(results: Results) -> list[tuple[Published, Row]]:
    """Return each mIoU of the table that a spec names with each row that it is about."""
    if results.reproduces is None:
        return []
    numbers = published(results.reproduces)
    return [
        (numbers[match.number], row)
        for match in results.matches
        if numbers[match.number].quantity == "miou_percent"
        for row in rows_of(results, match)
    ]


def _of(number: int, one: Published, results: Results, resampler: Resampler) -> Iterator[Beside]:
    """Yield a number beside ours of each group; groups that share their rows count once."""
    seen = set[tuple[str, ...]]()
    for match in results.matches:
        if match.number != number:
            continue
        rows = rows_of(results, match)
        key = tuple(sorted(row.stages.get("evaluate", row.trial) for row in rows))
        if key not in seen:
            seen.add(key)
            source = source_of(QUANTITIES[one.quantity], rows, results)
            yield replace(_compared(one, match, rows, resampler), source=source)
    if not seen:
        yield Beside(one, Verdict("not_run", "no row of it in the sweep"))


def rows_of(results: Results, match: Matched) -> list[Row]:
    """Return the rows that a number of the paper is about, one a place and seed."""
    return [
        row
        for row in results.rows
        if (row.group, row.method) == (match.group, match.method)
        and (row.dataset, row.eval_short_side_px) in match.places
    ]


def _compared(one: Published, match: Matched, rows: list[Row], resampler: Resampler) -> Beside:
    name = QUANTITIES[one.quantity]
    values = [row.miou if name == "miou" else getattr(row.cost, name) for row in rows]
    if not rows or any(value is None for value in values):
        return Beside(one, Verdict("not_run", next(_lacking(rows, name), "")), match.group)
    scale = _SCALES[one.quantity]
    ours = float(mean_over_datasets(rows, name)) * scale
    interval = _interval(rows, resampler) if name == "miou" else None
    return Beside(one, _verdict(one, match, ours, interval), match.group, ours, interval)


def _lacking(rows: list[Row], name: str) -> Iterator[str]:
    """Yield why rows do not have a quantity."""
    for row in rows:
        if (why := why_unmeasured(row, name)) is not None:
            yield why


def _interval(rows: list[Row], resampler: Resampler) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean mIoU in percent; None where counts are missing."""
    resampled = resampled_mious([[rows]], resampler)
    return None if resampled is None else interval_of(100 * resampled[0])


def _verdict(
    one: Published, match: Matched, ours: float, interval: tuple[float, float] | None
) -> Verdict:
    if match.departures:
        return Verdict("not_comparable", "; ".join(match.departures))
    margin = MARGIN if one.quantity == "miou_percent" else 0.0
    verdict = of_published(ours, one.value, one.reading_tolerance + margin, interval)
    if one.quantity == "seconds" and verdict.word != "reproduced":
        return Verdict("not_comparable", "the paper does not name the GPU that it timed on")
    return verdict
