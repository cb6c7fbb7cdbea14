"""Every figure of random weights says so, in a place with nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.figures import plan_figures
from spar_bench.report.names import RANDOM_WEIGHTS
from spar_bench.report.plans import FigurePlan
from spar_bench.report.style import house_style
from spar_bench.results import Results
from tests.report.synthetic import evaluations_of, stride_results

PRETRAINED = stride_results(n_seeds=1)
RANDOM = replace(PRETRAINED, rows=[replace(row, random_weights=True) for row in PRETRAINED.rows])


def plans_of(results: Results) -> dict[str, FigurePlan]:
    """Return the figures that results call for, by name."""
    plans = plan_figures(results, read_aggregates(results), evaluations_of(results))
    return {plan.name: plan for plan in plans}


PLANS = plans_of(RANDOM)


def drawn(plan: FigurePlan) -> Figure:
    """Draw a planned figure, laid out."""
    with house_style():
        figure = plan.draw()
        figure.draw_without_rendering()
    return figure


def mark_and_others(figure: Figure) -> tuple[Bbox, list[Bbox]]:
    """Return the positions of the mark and of everything else in the figure, in pixels."""
    (mark,) = (text for text in figure.texts if text.get_text() == RANDOM_WEIGHTS)
    others = [text.get_window_extent() for text in figure.texts if text is not mark]
    others += [legend.get_window_extent() for legend in figure.legends]
    tight = [axes.get_tightbbox() for axes in figure.axes]
    return mark.get_window_extent(), others + [box for box in tight if box is not None]


@pytest.mark.parametrize("name", PLANS)
def test_the_mark_of_random_weights_covers_nothing_and_stays_inside(name: str) -> None:
    figure = drawn(PLANS[name])

    mark, others = mark_and_others(figure)
    assert mark.x1 <= figure.bbox.x1
    assert mark.y0 >= 0
    assert mark.y1 <= min(box.y0 for box in others)
    assert max(box.y1 for box in others) <= figure.bbox.y1


@pytest.mark.parametrize("name", ["accuracy_vs_gflops", "qualitative", "per_class"])
def test_the_mark_moves_all_else_up_by_a_line_and_changes_no_size(name: str) -> None:
    with_mark, without = drawn(PLANS[name]), drawn(plans_of(PRETRAINED)[name])

    line_px = with_mark.bbox.height - without.bbox.height
    assert line_px > 0
    for moved, axes in zip(with_mark.axes, without.axes, strict=True):
        np.testing.assert_allclose(
            moved.bbox.bounds, np.add(axes.bbox.bounds, (0, line_px, 0, 0)), atol=0.01
        )
