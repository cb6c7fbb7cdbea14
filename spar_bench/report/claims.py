"""Measure the claims of a spec on its rows: a value, its interval over images, and a verdict."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from spar_bench.accuracy import interval_of
from spar_bench.claims import Claim, Selected
from spar_bench.report.measuring import (
    Resampler,
    Values,
    mean_over_datasets,
    resampled_mious,
    source_of,
    total,
    why_unmeasured,
)
from spar_bench.report.page import Source
from spar_bench.report.verdicts import Verdict, of_claim
from spar_bench.results import Results, Row


@dataclass(frozen=True)
class Checked:
    """A claim, and what was measured of it; `value` and the interval are None where nothing was.

    The 95 % interval is over images; a quantity that images do not change has none. `source` has
    the rows that are compared.
    """

    experiment: str
    claim: Claim
    verdict: Verdict
    value: float | None = None
    interval: tuple[float, float] | None = None
    n_images: int = 0
    n_seeds: int = 0
    source: Source | None = None


class _Unmeasured(Exception):
    """A claim cannot be measured, and why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


def check_claims(results: Results, resampler: Resampler) -> list[Checked]:
    """Return what was measured of each claim of a sweep's spec, in its order."""
    return [_checked(results, Claim.of(one), resampler) for one in results.claims]


def _checked(results: Results, claim: Claim, resampler: Resampler) -> Checked:
    try:
        sides = [[_rows(results, claim, one) for one in side] for side in claim.sides]
        _require_same_datasets(sides)
    except _Unmeasured as error:
        return Checked(results.experiment, claim, error.verdict)
    rows = [row for side in sides for selected in side for row in selected]
    means = [total(mean_over_datasets(one, claim.quantity) for one in side) for side in sides]
    if not _divisor(claim, means) > 0:
        nothing = "there is no gain to share" if claim.form == "share" else "it divides by nothing"
        return Checked(results.experiment, claim, Verdict("not_comparable", nothing))
    value = float(_compared(claim, means))
    interval = _interval(claim, sides, resampler)
    return Checked(
        experiment=results.experiment,
        claim=claim,
        verdict=_verdict(claim, value, interval, rows),
        value=value,
        interval=interval,
        n_images=sum({row.dataset: row.n_images or 0 for row in rows}.values()),
        n_seeds=max((len({row.seed for row in one}) for side in sides for one in side), default=0),
        source=source_of(claim.quantity, rows, results),
    )


def _rows(results: Results, claim: Claim, selected: Selected) -> list[Row]:
    """Return the rows that are selected, each evaluation once.

    Raises:
        _Unmeasured: there is none; one has no number or a random one; or they are of several
            settings, of which the claim does not say which it means.
    """
    found = [
        row
        for row in results.rows
        if row.group in selected.groups
        and row.method == selected.method
        and selected.dataset in (None, row.dataset)
        and selected.short_side_px in (None, row.eval_short_side_px)
    ]
    rows = list({row.stages.get("evaluate", row.trial): row for row in found}.values())
    if not rows:
        raise _Unmeasured(Verdict("not_run", f"no row of {selected.text}"))
    for row in rows:
        if (why := why_unmeasured(row, claim.quantity)) is not None:
            raise _Unmeasured(Verdict("not_run", f"{row.trial}, {row.method}: {why}"))
        if row.random_weights and claim.quantity == "miou":
            raise _Unmeasured(Verdict("not_comparable", "its weights are random"))
    places = [(row.dataset, row.eval_short_side_px, row.seed) for row in rows]
    if len(set(places)) < len(places):
        settings = len({row.group for row in rows})
        text = f"{selected.text} selects {settings} settings; say which"
        raise _Unmeasured(Verdict("not_comparable", text))
    return rows


def _require_same_datasets(sides: list[list[list[Row]]]) -> None:
    of_each = [{row.dataset for row in one} for side in sides for one in side]
    if any(datasets != of_each[0] for datasets in of_each):
        raise _Unmeasured(Verdict("not_comparable", "it compares rows of different data sets"))


def _interval(
    claim: Claim, sides: list[list[list[Row]]], resampler: Resampler
) -> tuple[float, float] | None:
    """Return the interval over images; None where counts are missing, or a resample has no value.

    A share or a ratio has none in resamples where it divides by nothing.
    """
    resampled = resampled_mious(sides, resampler) if claim.quantity == "miou" else None
    if resampled is None or not (_divisor(claim, resampled) > 0).all():
        return None
    return interval_of(_compared(claim, resampled))


def _compared(claim: Claim, sides: list[Values]) -> Values:
    """Return what a claim compares, in the shape of its sides' values."""
    if claim.form == "rising":
        steps: Values = np.min([after - before for before, after in pairwise(sides)], axis=0)
        return steps
    first, second = sides[:2]
    if claim.form == "ratio":
        return first / _divisor(claim, sides)
    return (first - second) / _divisor(claim, sides)


def _divisor(claim: Claim, sides: list[Values]) -> Values:
    """Return what a claim divides by, which must be above 0: the way of a share, 1 without one."""
    match claim.form:
        case "ratio":
            return sides[1]
        case "share":
            return sides[2] - sides[1]
    return np.ones_like(sides[0])


def _verdict(
    claim: Claim, value: float, interval: tuple[float, float] | None, rows: list[Row]
) -> Verdict:
    """Judge a claim, with what makes its verdict weaker than it looks."""
    word = of_claim(value, claim.expected, interval and interval[1]).word
    notes = [] if word == "reproduced" or not claim.tried else [f"tried: {claim.tried}"]
    if claim.quantity in ("latency_p50_ms", "peak_mib"):
        devices = {(row.cost.device, row.dtype) for row in rows}
        if len(devices) > 1:
            return Verdict("not_comparable", "it compares different devices or precisions")
        if any(row.cost.latency_note for row in rows):
            notes.append("latency as on a loaded machine")
    return Verdict(word, "; ".join(notes))
