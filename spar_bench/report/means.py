"""Average accuracies over data sets, each at one resolution: what the paper's figures compare.

A mean is over all of the data sets or there is none: methods are compared on the same ones.
"""

import statistics
from collections.abc import Iterable
from dataclasses import replace

from spar_bench.published import TIMED_HW
from spar_bench.report.aggregates import Aggregate, Panel, panels_of
from spar_bench.report.paper import matched_mious
from spar_bench.results import Results


def summed_panels(results: Results, aggregates: Iterable[Aggregate]) -> list[Panel]:
    """Return the data sets that means are over, each at one resolution.

    They are those that numbers of the paper's table are about, else all. There are none where a
    data set has several resolutions, of which nothing says which is meant.
    """
    matched = [Panel(row.dataset, row.eval_short_side_px) for _, row in matched_mious(results)]
    panels = [panel for panel in panels_of(aggregates) if not matched or panel in matched]
    return panels if len({panel.dataset for panel in panels}) == len(panels) else []


def over_panels(aggregates: Iterable[Aggregate], panels: list[Panel]) -> list[Aggregate]:
    """Return the mean over `panels` of each method with its settings that has a number on all.

    Its cost is that of one image: the one that the paper timed, else the largest.
    """
    lines: dict[object, dict[Panel, Aggregate]] = {}
    for each in aggregates:
        lines.setdefault(each.key, {})[each.panel] = each
    whole = [
        [line[panel] for panel in panels]
        for line in lines.values()
        if all(panel in line and line[panel].mious for panel in panels)
    ]
    return [_mean(line) for line in whole if line]


def _mean(line: list[Aggregate]) -> Aggregate:
    timed = max(line, key=_worth_timing)
    return replace(timed, mious=_mious(line), evaluations=[e for a in line for e in a.evaluations])


def _mious(line: list[Aggregate]) -> list[float]:
    """Return the mean of each seed that is finished everywhere; without any, that of the means."""
    by_trial = [dict(zip(each.trials, each.mious, strict=True)) for each in line]
    trials = [trial for trial in by_trial[0] if all(trial in known for known in by_trial)]
    if not trials:
        return [statistics.fmean(statistics.fmean(each.mious) for each in line)]
    return [statistics.fmean(known[trial] for known in by_trial) for trial in trials]


def _worth_timing(aggregate: Aggregate) -> tuple[bool, int]:
    height, width = aggregate.cost.image_h or 0, aggregate.cost.image_w or 0
    return (height, width) == TIMED_HW, height * width
