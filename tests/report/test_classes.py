"""Per-class bars show the IoU of the counts."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spar_bench.accuracy import Counts, class_iou
from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.classes import (
    MOST_CLASSES_A_ROW,
    class_ious,
    classes_figure,
    shown_aggregates,
)
from spar_bench.report.style import house_style
from spar_bench.results import Results
from tests.report.synthetic import (
    CLASSES,
    InMemory,
    baseline,
    evaluations_of,
    results_of,
    stride_results,
    students,
)


def drawn(results: Results, classes: list[str], **counts: Counts) -> Figure:
    """Draw the classes of all aggregates, laid out."""
    aggregates = read_aggregates(results)
    evaluations = InMemory(counts) if counts else evaluations_of(results)
    ious = class_ious(shown_aggregates(aggregates), evaluations)
    with house_style():
        figure = classes_figure(ious, classes, aggregates)
        figure.draw_without_rendering()
    return figure


def test_single_pass_best_teacher_and_students_are_shown() -> None:
    labels = [aggregate.name for aggregate in shown_aggregates(read_aggregates(stride_results()))]

    assert labels == ["single pass", "teacher s = 4", "SPAR last 2 blocks", "SPAR all"]


def test_of_many_students_the_best_are_shown() -> None:
    rows = []
    for n in range(1, 8):
        rows += students(f"last_{n}_blocks", 40 + n, n_seeds=1, stages={"evaluate": f"{n}"})

    labels = [aggregate.label for aggregate in shown_aggregates(read_aggregates(results_of(rows)))]

    assert labels == [f"SPAR last {n} blocks" for n in (4, 5, 6, 7)]


def test_a_bar_is_as_high_as_the_mean_iou_over_seeds() -> None:
    results = results_of([baseline(38), *students("all", 45)])

    figure = drawn(results, CLASSES)

    bars = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    counts = evaluations_of(results).all_counts
    seeds = [class_iou(counts[f"student_all_{seed}"]) for seed in range(3)]
    expected = [class_iou(counts["pretrained"]), np.mean(seeds, axis=0)]
    heights = [bar.get_height() for bar in bars if bar.get_width() > 0][: 2 * len(CLASSES)]
    np.testing.assert_allclose(heights, 100 * np.concatenate(expected))


def test_the_best_of_many_students_have_a_colour_each() -> None:
    rows = []
    for n in range(1, 9):
        rows += students(f"last_{n}_blocks", 40 + n, n_seeds=1, stages={"evaluate": f"{n}"})

    figure = drawn(results_of(rows), CLASSES)

    (legend,) = figure.legends
    colors = {line.get_color() for line in legend.get_lines()}
    assert len(colors) == 4


def test_an_absent_class_is_said_to_be_absent() -> None:
    ones = np.ones((2, 3), np.int64)
    ones[:, 1] = 0

    figure = drawn(
        results_of([baseline(38)]),
        ["road", "$ky$", "tree"],
        pretrained=Counts(ones, ones, ones),
    )

    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names == ["road", r"\$ky\$ (absent)", "tree"]


def test_the_bars_of_every_row_are_whole() -> None:
    n_classes = 2 * MOST_CLASSES_A_ROW + 1
    true = np.full((2, n_classes), 100, np.int64)
    correct = np.tile(np.linspace(1, 90, n_classes).astype(np.int64), (2, 1))
    classes = [f"class {i}" for i in range(n_classes)]

    figure = drawn(results_of([baseline(38)]), classes, pretrained=Counts(correct, true, true))

    highest = 100 * 90 / (100 + 100 - 90)
    limits = {axes.get_ylim() for axes in figure.axes}
    assert len(limits) == 1
    ((bottom, top),) = limits
    assert bottom == 0
    assert highest < top < 1.2 * highest


def test_many_classes_are_broken_into_rows_and_their_names_do_not_collide() -> None:
    n_classes = 2 * MOST_CLASSES_A_ROW + 1
    counts = np.ones((2, n_classes), np.int64)
    classes = [f"a rather long name {i}" for i in range(n_classes)]

    figure = drawn(results_of([baseline(38)]), classes, pretrained=Counts(counts, counts, counts))

    assert len(figure.axes) == 3
    names = [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]
    assert names == [f"a rather long name {i}" for i in range(n_classes)]
    assert {label.get_rotation() for label in figure.axes[0].get_xticklabels()} == {35}
