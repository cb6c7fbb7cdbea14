"""Draw the intersection over union of each class, one bar per method."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from spar_bench.accuracy import class_iou
from spar_bench.evaluations import Evaluations
from spar_bench.report import text
from spar_bench.report.aggregates import Aggregate
from spar_bench.report.style import PAGE_IN, legend_above, marks_apart, new_figure

MOST_STUDENTS = 4
MOST_CLASSES_A_ROW = 20
LETTERS_A_ROW = 105


def shown_aggregates(aggregates: list[Aggregate]) -> list[Aggregate]:
    """Return the aggregates that a reader compares: single pass, best teacher, best students."""
    best_first = sorted((each for each in aggregates if each.mious), key=lambda a: -(a.miou or 0))
    limits = {"pretrained": 1, "teacher": 1}
    kept = []
    for method in dict.fromkeys(each.method for each in aggregates):
        kept += [a for a in best_first if a.method == method][: limits.get(method, MOST_STUDENTS)]
    return [each for each in aggregates if each in kept]


def class_ious(
    aggregates: list[Aggregate], evaluations: Evaluations
) -> dict[str, NDArray[np.float64]]:
    """Return the IoU of each class for each seed, `(n, K)`, by name of the aggregate."""
    ious = {}
    for aggregate in aggregates:
        found = [evaluations.counts(key) for key in aggregate.evaluations]
        seeds = [class_iou(counts) for counts in found if counts is not None]
        if seeds:
            ious[aggregate.name] = np.array(seeds)
    return ious


def classes_figure(
    ious: Mapping[str, NDArray[np.float64]], classes: list[str], aggregates: list[Aggregate]
) -> Figure:
    """Draw the classes in rows of bars, seeds as mean ± sd.

    All `aggregates` of the report decide the colours, so that each has one colour everywhere.
    """
    frame = _frame(ious, classes)
    n_rows = math.ceil(len(classes) / MOST_CLASSES_A_ROW)
    names = [_name(name, frame, number) for number, name in enumerate(classes)]
    is_tilted = max(map(len, names)) > LETTERS_A_ROW / min(len(names), MOST_CLASSES_A_ROW)
    below = 0.034 * max(map(len, names)) if is_tilted else 0.1
    figure = new_figure(PAGE_IN, 0.1 + (1.55 + below) * n_rows)
    facets = figure.subplots(n_rows, 1, squeeze=False, sharey=True).flatten()
    shown = {each.name: each for each in aggregates if each.name in ious}
    marks = marks_apart(shown.values(), aggregates)
    colors = {name: marks[shown[name].label].color for name in ious}
    for facet, numbers in zip(facets, np.array_split(np.arange(len(classes)), n_rows), strict=True):
        _draw_row(facet, frame[frame["class"].isin(numbers)], colors, [int(n) for n in numbers])
        _name_classes(facet, [names[n] for n in numbers], is_tilted)
    facets[0].set_ylim(0, None)  # shared, and final: so only after all bars are drawn
    handles = {
        label: Line2D([], [], color=color, marker="s", linestyle="none", markersize=4.5)
        for label, color in colors.items()
    }
    legend_above(figure, handles, columns=6)
    return figure


def _frame(ious: Mapping[str, NDArray[np.float64]], classes: list[str]) -> pd.DataFrame:
    lines = [
        (number, label, 100 * values[number])
        for label, seeds in ious.items()
        for values in seeds
        for number in range(len(classes))
    ]
    return pd.DataFrame(lines, columns=["class", "method", "iou"])


def _draw_row(axes: Axes, frame: pd.DataFrame, colors: dict[str, str], numbers: list[int]) -> None:
    seeds = frame.groupby(["class", "method"]).size().max()
    sns.barplot(
        data=frame, x="class", y="iou", hue="method", ax=axes, order=numbers,
        hue_order=list(colors), palette=colors, saturation=1, width=0.82, legend=False,
        errorbar="sd" if seeds > 1 else None, err_kws={"linewidth": 0.7, "color": "#222222"},
    )  # fmt: skip
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("")
    axes.set_ylabel("IoU (%)")


def _name(name: str, frame: pd.DataFrame, number: int) -> str:
    """Name a class, and say if it is absent, so that no method has a value."""
    absent = frame.loc[frame["class"] == number, "iou"].isna().all()
    return text.plot(name, most=28) + (" (absent)" if absent else "")


def _name_classes(axes: Axes, names: list[str], is_tilted: bool) -> None:
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", length=0)
    if is_tilted:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
