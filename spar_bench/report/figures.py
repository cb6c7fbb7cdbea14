"""Decide which figures a sweep's results need: file names, captions and how to draw them."""

import itertools
import statistics
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from spar_bench.backbones import RANDOM
from spar_bench.report import text
from spar_bench.report.arms import Arm, panels_of
from spar_bench.report.classes import classes_figure, shown_arms
from spar_bench.report.pictures import panel_figure
from spar_bench.report.series import swept_axes
from spar_bench.report.style import warn_below
from spar_bench.report.sweeps import axis_figure
from spar_bench.report.tradeoff import CostAxis, has_front, has_lines, tradeoff_figure
from spar_bench.results import Results

GFLOPS = CostAxis(
    "accuracy_vs_gflops", "GFLOPs per image{where} (1 MAC = 2 FLOPs)", lambda arm: arm.cost.gflops
)
LATENCY = CostAxis(
    "accuracy_vs_latency",
    "Median latency per image{where} (ms)",
    lambda arm: arm.cost.latency_p50_ms,
)


@dataclass(frozen=True)
class FigurePlan:
    """A figure to be drawn: its file name without an ending, and what it shows."""

    name: str
    caption: str
    draw: Callable[[], Figure]


def plan_figures(results: Results, arms: list[Arm]) -> list[FigurePlan]:
    """Return the figures that `results` can fill, each with a name of its own."""
    datasets = list(dict.fromkeys(arm.panel.dataset for arm in arms))
    planned: dict[str, FigurePlan] = {}
    for dataset in datasets:
        its = [arm for arm in arms if arm.panel.dataset == dataset]
        suffix = f"_{dataset}" if len(datasets) > 1 else ""
        for plan in [*_tradeoffs(results, its), *_along_axes(its), *_of_panels(results, its)]:
            name = _free_name(text.file_name(plan.name + suffix), planned)
            caption = f"{plan.caption} ({dataset})" if suffix else plan.caption
            draw = partial(_marked, plan.draw) if untaught(results) else plan.draw
            planned[name] = FigurePlan(name, caption, draw)
    return list(planned.values())


def untaught(results: Results) -> bool:
    """Tell whether a backbone has random weights, so that its mIoU is meaningless."""
    return any(row.backbone.endswith(RANDOM) for row in results.rows)


def _marked(draw: Callable[[], Figure]) -> Figure:
    """Draw a figure and mark in it that weights are random."""
    figure = draw()
    warn_below(figure, RANDOM.strip(" ()"))
    return figure


def _tradeoffs(results: Results, arms: list[Arm]) -> Iterator[FigurePlan]:
    names = dict.fromkeys(name for scores in results.objectives.values() for name in scores)
    others = [n for n in names if n not in ("miou", "gflops", "latency_p50_ms")]
    for axis in [GFLOPS, LATENCY, *(_objective(results, name) for name in others)]:
        if any(arm.mious and axis.value(arm) is not None for arm in arms):
            title = axis.title.format(where="")
            yield FigurePlan(
                axis.name,
                f"Accuracy against cost: {title[0].lower() if title[1].islower() else title[0]}"
                f"{title[1:]}, on a log axis. {_said(arms, axis)}",
                partial(tradeoff_figure, arms, axis),
            )


def _said(arms: list[Arm], axis: CostAxis) -> str:
    """Explain what a figure of accuracy against cost shows besides points."""
    parts = ["the line joins the teacher's strides"] if has_lines(arms) else []
    parts += ["bars are one standard deviation over seeds"]
    if has_front(arms, axis):
        parts += ["no point is above and left of the Pareto front"]
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}."


def _objective(results: Results, name: str) -> CostAxis:
    """Return the objectives that a search scored its trials by, averaged over an arm's seeds."""

    def value(arm: Arm) -> float | None:
        scores = [results.objectives.get(trial, {}).get(name) for trial in arm.trials]
        known = [score for score in scores if score is not None and score > 0]
        return statistics.fmean(known) if known else None

    title = "Training GFLOPs" if name == "train_gflops" else name.replace("_", " ")
    return CostAxis(f"accuracy_vs_{name}", title, value)


def _along_axes(arms: list[Arm]) -> Iterator[FigurePlan]:
    for axis in swept_axes(arms):
        yield FigurePlan(
            axis.name,
            f"Accuracy along what was swept: {axis.title[0].lower()}{axis.title[1:]}. Bars are one "
            "standard deviation over seeds; dashed lines are methods that it does not affect, a "
            "student's with the value of its teacher.",
            partial(axis_figure, arms, axis),
        )


def _of_panels(results: Results, arms: list[Arm]) -> Iterator[FigurePlan]:
    panels = panels_of(arms)
    for panel in panels:
        suffix = f"_{panel.eval_short_side_px}px" if len(panels) > 1 else ""
        at = f" at a short side of {panel.eval_short_side_px} px" if suffix else ""
        here = [arm for arm in arms if arm.panel == panel]
        classes = results.classes.get(panel.dataset, [])
        if any(key in results.counts for arm in here for key in arm.evaluations):
            yield FigurePlan(
                f"per_class{suffix}",
                f"IoU of each class{at}: single pass, best teacher, best students.",
                partial(classes_figure, here, arms, results.counts, classes),
            )
        previews = {
            arm.name: results.previews[arm.evaluations[0]]
            for arm in shown_arms(here)
            if arm.evaluations[0] in results.previews
        }
        if any(preview.names for preview in previews.values()):
            yield FigurePlan(
                f"qualitative{suffix}",
                f"The first validation images{at}, their truth and what each method predicts. "
                "Regions with enough room show the number of their class.",
                partial(panel_figure, previews, classes),
            )


def _free_name(name: str, taken: Container[str]) -> str:
    """Return `name`, numbered where another figure has it (`a.b` and `a_b` make one file name)."""
    numbered = (name if n == 1 else f"{name}_{n}" for n in itertools.count(1))
    return next(candidate for candidate in numbered if candidate not in taken)
