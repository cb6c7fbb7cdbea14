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
    return [mean for line in whole if line and (mean := _mean(line)).mious]


def _mean(line: list[Aggregate]) -> Aggregate:
    """Return the mean of each seed that is finished on all data sets, as an aggregate."""
    by_seed = [dict(zip(each.seeds, each.mious, strict=True)) for each in line]
    seeds = [seed for seed in by_seed[0] if all(seed in known for known in by_seed)]
    return replace(
        max(line, key=_worth_timing),
        mious=[statistics.fmean(known[seed] for known in by_seed) for seed in seeds],
        seeds=seeds,
        evaluations=[one for each in line for one in each.evaluations],
        unfinished=[one for each in line for one in each.unfinished],
        rows=tuple(row for each in line for row in each.rows),
    )


def _worth_timing(aggregate: Aggregate) -> tuple[bool, int]:
    height, width = aggregate.cost.image_h or 0, aggregate.cost.image_w or 0
    return (height, width) == TIMED_HW, height * width
