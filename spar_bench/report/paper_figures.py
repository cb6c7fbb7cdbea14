"""Plan the figures in the form of the paper's two: by stride, and by resolution.

Any sweep with enough strides or resolutions has them; the paper's own numbers are behind ours only
where a spec names its figure.
"""

from collections.abc import Iterator
from functools import partial

from spar_bench.report.aggregates import Aggregate
from spar_bench.report.plans import FigurePlan
from spar_bench.report.resolution_figure import Resolutions, resolution_figure
from spar_bench.report.stride_figure import Strides, stride_figure

_TIMED = "time of one image"
_UNTIMED = "GFLOPs of one image (1 MAC = 2 FLOPs; nothing was timed)"
_BEHIND = " Hollow and grey behind ours: the paper's numbers, whose GPU is not known."


def plan_strides(aggregates: list[Aggregate], stories: list[Strides]) -> Iterator[FigurePlan]:
    """Yield a figure for each line of strides; captions say which if there are several."""
    for strides in stories:
        several = [f" ({strides.teachers[0].settings['backbone']})"] if len(stories) > 1 else []
        over = ", ".join(strides.datasets)
        cost = _TIMED if strides.is_timed else _UNTIMED
        yield FigurePlan(
            "stride_figure",
            f"Accuracy against {cost}, on a log axis, by the teacher's stride{''.join(several)}. "
            f"mIoU is {'the mean over ' if len(strides.datasets) > 1 else 'that on '}{over}. "
            "Arrows: what the best student gains over a single pass, and over its teacher. Bars "
            f"are one standard deviation over seeds.{_BEHIND if strides.paper else ''}",
            partial(stride_figure, strides, aggregates),
        )


def plan_resolutions(shown: Resolutions) -> FigurePlan:
    """Return the figure of one data set at several resolutions."""
    cost = _TIMED if shown.is_timed else _UNTIMED
    return FigurePlan(
        "resolution_figure",
        f"Accuracy, and {cost} on a log axis, against effective resolution: the side of the square "
        "with as many pixels. Lines of the time coincide where images are read alike. Bars are one "
        f"standard deviation over seeds.{_BEHIND if shown.paper else ''}",
        partial(resolution_figure, shown),
    )
