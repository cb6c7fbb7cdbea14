"""Decide which figures a sweep's results need: file names, captions and how to draw them."""

import itertools
import statistics
from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from functools import partial

from matplotlib.figure import Figure

from spar_bench.evaluations import Evaluations
from spar_bench.report import text
from spar_bench.report.aggregates import Aggregate, panels_of
from spar_bench.report.classes import class_ious, classes_figure, shown_aggregates
from spar_bench.report.figure_tables import axis_numbers, class_numbers, cost_numbers
from spar_bench.report.names import RANDOM_WEIGHTS
from spar_bench.report.paper_figures import plan_resolutions, plan_strides
from spar_bench.report.pictures import panel_figure, pca_figure
from spar_bench.report.plans import FigurePlan
from spar_bench.report.resolution_figure import resolutions_of
from spar_bench.report.series import RESOLUTION, swept_axes
from spar_bench.report.stride_figure import Strides, stride_stories
from spar_bench.report.style import watermark
from spar_bench.report.sweeps import axis_figure
from spar_bench.report.tradeoff import (
    CostAxis,
    has_front,
    has_lines,
    named_of_all,
    tradeoff_figure,
)
from spar_bench.results import Results

GFLOPS = CostAxis(
    "accuracy_vs_gflops", "GFLOPs per image{where} (1 MAC = 2 FLOPs)", lambda each: each.cost.gflops
)
LATENCY = CostAxis(
    "accuracy_vs_latency",
    "Median latency per image{where} (ms)",
    lambda each: each.cost.latency_p50_ms,
    is_of_device=True,
)
TRAINING = CostAxis(
    "accuracy_vs_training_cost",
    "Training GFLOPs with targets (1 MAC = 2 FLOPs)",
    lambda each: each.training.total_gflops,
)
TRAINING_ALONE = CostAxis(
    "accuracy_vs_training_cost",
    "Training GFLOPs without targets (1 MAC = 2 FLOPs)",
    lambda each: each.training.train_gflops,
)
"""For students of whose targets too little is known."""


def plan_figures(
    results: Results, aggregates: list[Aggregate], evaluations: Evaluations
) -> Iterator[FigurePlan]:
    """Yield the figures that `results` can fill, each with a name of its own.

    A plan may hold pictures: draw each before the next.
    """
    is_marked = any(each.has_random_weights for each in aggregates)
    taken = set[str]()
    stories = stride_stories(results, aggregates)
    for suffix, plan in itertools.chain(
        (("", plan) for plan in plan_strides(aggregates, stories)),
        _of_datasets(results, aggregates, evaluations, drawn=_drawn_axis(aggregates, stories)),
    ):
        name = _free_name(text.file_name(plan.name + suffix), taken)
        taken.add(name)
        caption = f"{plan.caption} ({suffix[1:]})" if suffix else plan.caption
        draw = partial(_with_watermark, plan.draw) if is_marked else plan.draw
        yield FigurePlan(name, caption, draw, plan.numbers)


def _of_datasets(
    results: Results,
    aggregates: list[Aggregate],
    evaluations: Evaluations,
    *,
    drawn: CostAxis | None,
) -> Iterator[tuple[str, FigurePlan]]:
    """Yield the figures of each data set, and what their names end with if there are several."""
    datasets = list(dict.fromkeys(each.panel.dataset for each in aggregates))
    for dataset in datasets:
        here = [each for each in aggregates if each.panel.dataset == dataset]
        suffix = f"_{dataset}" if len(datasets) > 1 else ""
        for plan in itertools.chain(
            _tradeoffs(results, here, drawn=drawn),
            _along_axes(results, here),
            _of_panels(results, here, evaluations),
        ):
            yield suffix, plan


def _drawn_axis(aggregates: list[Aggregate], stories: list[Strides]) -> CostAxis | None:
    """Return the axis of cost on which a figure of strides shows all that there is, if it does."""
    finished = {(each.key, each.panel) for each in aggregates if each.mious}
    for strides in stories:
        if finished == {(each.key, each.panel) for each in strides.shown}:
            return LATENCY if strides.is_timed else GFLOPS
    return None


def _with_watermark(draw: Callable[[], Figure]) -> Figure:
    """Draw a figure and mark in it that weights are random."""
    figure = draw()
    watermark(figure, RANDOM_WEIGHTS)
    return figure


def _tradeoffs(
    results: Results, aggregates: list[Aggregate], *, drawn: CostAxis | None
) -> Iterator[FigurePlan]:
    names = dict.fromkeys(name for scores in results.objectives.values() for name in scores)
    others = [n for n in names if n not in ("miou", "gflops", "latency_p50_ms")]
    for axis in [
        GFLOPS,
        LATENCY,
        *_training(aggregates),
        *(_objective(results, name) for name in others),
    ]:
        is_known = any(each.mious and axis.value(each) is not None for each in aggregates)
        if is_known and axis is not drawn:
            title = axis.title.format(where="")
            yield FigurePlan(
                axis.name,
                f"Accuracy against cost: {title[0].lower() if title[1].islower() else title[0]}"
                f"{title[1:]}, on a log axis. {_explanation(aggregates, axis)}",
                partial(tradeoff_figure, aggregates, axis),
                cost_numbers(aggregates, axis),
            )


def _training(aggregates: list[Aggregate]) -> list[CostAxis]:
    """Return the axis of training cost, if at least two students differ in it."""
    trained = [each for each in aggregates if each.training.train_gflops is not None]
    is_whole = all(TRAINING.value(each) is not None for each in trained)
    axis = TRAINING if is_whole else TRAINING_ALONE
    differ = len({axis.value(each) for each in trained if each.mious}) > 1
    return [axis] if differ else []


def _explanation(aggregates: list[Aggregate], axis: CostAxis) -> str:
    """Explain what a figure of accuracy against cost shows besides points."""
    parts = ["the line joins the teacher's strides"] if has_lines(aggregates) else []
    parts += ["bars are one standard deviation over seeds"]
    if has_front(aggregates, axis):
        parts += ["no point is above and left of the Pareto front"]
    n_named, n_all = named_of_all(aggregates, axis)
    if n_named < n_all:
        parts += [f"of {n_all} points, the best are named, {n_named} at most"]
    explanation = "; ".join(parts)
    return f"{text.capitalised(explanation)}."


def _objective(results: Results, name: str) -> CostAxis:
    """Return the objectives that a search scored its trials by, averaged over seeds."""

    def value(aggregate: Aggregate) -> float | None:
        scores = [results.objectives.get(trial, {}).get(name) for trial in aggregate.trials]
        known = [score for score in scores if score is not None and score > 0]
        return statistics.fmean(known) if known else None

    title = "Training GFLOPs, without targets" if name == "train_gflops" else name.replace("_", " ")
    return CostAxis(f"accuracy_vs_{name}", title, value)


def _along_axes(results: Results, aggregates: list[Aggregate]) -> Iterator[FigurePlan]:
    for axis in swept_axes(aggregates):
        if axis.key == RESOLUTION and (shown := resolutions_of(results, aggregates)) is not None:
            yield plan_resolutions(shown)
            continue
        yield FigurePlan(
            axis.name,
            f"Accuracy along what was swept: {axis.title[0].lower()}{axis.title[1:]}. Bars are one "
            "standard deviation over seeds; dashed lines are methods that it does not affect, a "
            "student's with the value of its teacher.",
            partial(axis_figure, aggregates, axis),
            axis_numbers(aggregates, axis),
        )


def _of_panels(
    results: Results, aggregates: list[Aggregate], evaluations: Evaluations
) -> Iterator[FigurePlan]:
    panels = panels_of(aggregates)
    for panel in panels:
        suffix = f"_{panel.eval_short_side_px}px" if len(panels) > 1 else ""
        at = f" at a short side of {panel.eval_short_side_px} px" if suffix else ""
        here = [each for each in aggregates if each.panel == panel]
        shown = shown_aggregates(here)
        if not shown:
            continue
        # Classes are part of the protocol, and protocols may be mixed.
        classes = results.classes[shown[0].classes]
        shown = [each for each in shown if results.classes[each.classes] == classes]
        if ious := class_ious(shown, evaluations):
            yield FigurePlan(
                f"per_class{suffix}",
                f"IoU of each class{at}: single pass, best teacher, best students.",
                partial(classes_figure, ious, classes, aggregates),
                class_numbers(ious, classes),
            )
        for plan in _pictures(shown, classes, evaluations, at=at):
            yield replace(plan, name=plan.name + suffix)


def _pictures(
    shown: list[Aggregate], classes: list[str], evaluations: Evaluations, *, at: str
) -> Iterator[FigurePlan]:
    """Yield the panel of some images, and the features of the first in the teacher's PCA."""
    previews = {
        each.name: preview
        for each in shown
        if (preview := evaluations.preview(each.evaluations[0])) is not None
    }
    if not any(preview.names for preview in previews.values()):
        return
    yield FigurePlan(
        "qualitative",
        f"Validation images{at}, their truth and what each method predicts. "
        "Regions with enough room show the number of their class.",
        partial(panel_figure, previews, classes),
    )
    teacher = next((each for each in shown if each.method == "teacher"), shown[0])
    features = {
        each.name: found
        for each in shown
        if each.settings["backbone"] == teacher.settings["backbone"]
        and (found := evaluations.features(each.evaluations[0])) is not None
    }
    if len(features) > 1:
        preview = next(preview for preview in previews.values() if preview.names)
        fitted_to = teacher.name if teacher.name in features else None
        whose = f"{fitted_to}'s" if fitted_to else "all of them"
        yield FigurePlan(
            "pca",
            f"Features of {preview.names[0]}{at}: the first three principal components of "
            f"{whose} as red, green and blue. A colour is the same feature in each.",
            partial(pca_figure, preview.images[0], features, fitted_to=fitted_to),
        )


def _free_name(name: str, taken: Container[str]) -> str:
    """Return `name`, numbered where another figure has it (`a.b` and `a_b` make one file name)."""
    numbered = (name if n == 1 else f"{name}_{n}" for n in itertools.count(1))
    return next(candidate for candidate in numbered if candidate not in taken)
