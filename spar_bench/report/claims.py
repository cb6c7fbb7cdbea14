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
    quantity,
    resampled_mious,
    source_of,
    total,
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
    value = float(_compared(claim, means))
    resampled = resampled_mious(sides, resampler) if claim.quantity == "miou" else None
    interval = None if resampled is None else interval_of(_compared(claim, resampled))
    return Checked(
        experiment=results.experiment,
        claim=claim,
        verdict=_with_notes(of_claim(value, claim.expected, interval and interval[1]), claim, rows),
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
        if row.status != "finished" or quantity(row, claim.quantity) is None:
            why = row.reason or row.status.replace("_", " ")
            if row.status == "finished":
                why = f"{claim.quantity} was not measured"
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


def _compared(claim: Claim, sides: list[Values]) -> Values:
    """Return what a claim compares, in the shape of its sides' values."""
    if claim.form == "rising":
        steps: Values = np.min([after - before for before, after in pairwise(sides)], axis=0)
        return steps
    first, second = sides[:2]
    if claim.form == "difference":
        return first - second
    with np.errstate(divide="ignore", invalid="ignore"):
        if claim.form == "ratio":
            return first / second
        return (first - second) / (sides[2] - second)


def _with_notes(verdict: Verdict, claim: Claim, rows: list[Row]) -> Verdict:
    """Add what makes a verdict weaker than it looks."""
    notes = list[str]()
    if claim.quantity in ("latency_p50_ms", "peak_mib"):
        devices = {(row.cost.device, row.dtype) for row in rows}
        if len(devices) > 1:
            return Verdict("not_comparable", "it compares different devices or precisions")
        if any(row.cost.latency_note for row in rows):
            notes.append("latency as on a loaded machine")
    return Verdict(verdict.word, "; ".join([*filter(None, [verdict.reason]), *notes]))
