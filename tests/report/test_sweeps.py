"""Accuracy along what was swept: which axes there are, what is on them, what is drawn."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from spar_bench.report.aggregates import Aggregate, read_aggregates
from spar_bench.report.series import Axis, series_along, swept_axes, with_marks
from spar_bench.report.style import Mark, house_style, marks
from spar_bench.report.sweeps import axis_figure
from spar_bench.results import Row
from tests.report.synthetic import (
    STRIDES,
    baseline,
    results_of,
    row,
    stride_results,
    students,
    teacher,
)


def aggregates_of(rows: list[Row]) -> list[Aggregate]:
    """Return the aggregates of rows, each row with its own evaluation."""
    return read_aggregates(
        results_of([replace(r, stages={"evaluate": f"e{i}"}) for i, r in enumerate(rows)])
    )


def drawn(aggregates: list[Aggregate], axis: Axis) -> Figure:
    """Draw `axis` and lay it out."""
    with house_style():
        figure = axis_figure(aggregates, axis)
        figure.draw_without_rendering()
    return figure


def resolution_rows() -> list[Row]:
    """Return single pass, teacher and student at three resolutions."""
    return [
        replace(r, eval_short_side_px=side)
        for side in (128, 256, 512)
        for r in (baseline(30), teacher(8, 40), *students("all", 38))
    ]


def search_rows() -> list[Row]:
    """Return twelve students that differ in every setting but the trained part."""
    return [
        row("student", 0.4 + i / 100, group=f"g{i}", trial=f"t{i}",
            swept={"student.learning_rate": 10.0 ** (-5 + i / 4), "student.epochs": 2 + i})
        for i in range(12)
    ]  # fmt: skip


def test_the_axes_are_the_settings_in_which_aggregates_differ() -> None:
    axes = swept_axes(read_aggregates(stride_results()))

    assert [(axis.name, axis.values) for axis in axes] == [
        ("accuracy_vs_stride", tuple(STRIDES)),
        ("accuracy_vs_trainable", ("last_2_blocks", "all")),
    ]


def test_a_sweep_over_resolutions_has_that_axis_and_a_line_a_method() -> None:
    aggregates = aggregates_of(resolution_rows())

    (axis,) = swept_axes(aggregates)
    series = series_along(aggregates, axis)

    assert axis.name == "accuracy_vs_resolution"
    assert [its.label for its in series] == ["single pass", "s = 8", "SPAR all"]
    assert [axis.of(aggregate) for aggregate in series[1].aggregates] == [128, 256, 512]


def test_an_axis_on_which_everything_failed_is_none() -> None:
    rows = [teacher(s, 40) for s in (8, 16)]

    assert swept_axes(aggregates_of([replace(r, miou=None, status="failed") for r in rows])) == []


def test_windows_by_strides_are_a_line_a_window() -> None:
    aggregates = aggregates_of(
        [teacher(s, 40, window_px=w, group=f"{w}/{s}") for w in (48, 64) for s in (8, 16)]
    )
    stride = next(axis for axis in swept_axes(aggregates) if axis.key == "stride_px")

    series = series_along(aggregates, stride)

    assert [its.label for its in series] == ["w = 64", "w = 48"]
    assert [
        [aggregate.settings["stride_px"] for aggregate in its.aggregates] for its in series
    ] == [[8, 16]] * 2
    assert series[0].mark.color != series[1].mark.color


def test_a_search_is_a_cloud_of_points_on_a_log_axis() -> None:
    aggregates = aggregates_of(search_rows())
    rate = next(axis for axis in swept_axes(aggregates) if axis.name == "accuracy_vs_learning_rate")

    (cloud,) = series_along(aggregates, rate)

    assert rate.is_log
    assert not cloud.joined
    assert len(cloud.aggregates) == 12


def test_every_stride_is_written_under_the_axis_in_one_of_two_lines() -> None:
    aggregates = read_aggregates(stride_results())
    figure = drawn(aggregates, swept_axes(aggregates)[0])

    (axes,) = figure.axes
    words = [label.get_text() for label in axes.get_xticklabels()]
    assert [int(word) for word in words] == sorted(STRIDES)
    assert [word for word in words if word.startswith("\n")] == ["\n32"]
    boxes = [label.get_window_extent().extents for label in axes.get_xticklabels()]
    first_line = [box for word, box in zip(words, boxes, strict=True) if not word.startswith("\n")]
    assert all(a[2] < b[0] for a, b in pairwise(first_line))


def test_methods_that_an_axis_does_not_move_are_level_lines() -> None:
    aggregates = read_aggregates(stride_results())

    figure = drawn(aggregates, swept_axes(aggregates)[0])

    level = {
        round(float(np.asarray(line.get_ydata())[0]), 1)
        for line in figure.axes[0].get_lines()
        if list(np.asarray(line.get_xdata())) == [0, 1]
    }
    assert level == {38.3, 42.7, 45.2}
    (legend,) = figure.legends
    names = [entry.get_text() for entry in legend.get_texts()]
    assert names[-3:] == [
        "single pass",
        "SPAR last 2 blocks (from s = 12)",
        "SPAR all (from s = 12)",
    ]
    assert figure.axes[0].get_xlabel() == "Stride (px), log axis"


def test_single_pass_and_the_best_of_many_students_are_level_lines_of_different_colours() -> None:
    rows = [baseline(38), *(teacher(s, 40 + s / 4) for s in (8, 12, 16))]
    for n in range(1, 9):
        rows += students(f"last_{n}_blocks", 40 + n, n_seeds=1, stages={"evaluate": f"s{n}"})
    aggregates = read_aggregates(results_of(rows))

    figure = drawn(aggregates, swept_axes(aggregates)[0])

    level = {
        round(float(np.asarray(line.get_ydata())[0])): line.get_color()
        for line in figure.axes[0].get_lines()
        if list(np.asarray(line.get_xdata())) == [0, 1]
    }
    assert sorted(level) == [38, 45, 46, 47, 48]
    assert len(set(level.values())) == 5


def test_students_are_set_against_their_own_teacher_and_single_pass() -> None:
    aggregates = read_aggregates(stride_results())

    figure = drawn(aggregates, swept_axes(aggregates)[1])

    (legend,) = figure.legends
    assert [entry.get_text() for entry in legend.get_texts()] == ["single pass", "teacher s = 12"]


def test_names_are_rows_with_mean_and_sd_over_seeds() -> None:
    aggregates = read_aggregates(stride_results())

    figure = drawn(aggregates, swept_axes(aggregates)[1])

    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["last 2 blocks", "all"]
    bars = sorted(
        tuple(np.round(np.asarray(path.vertices)[:, 0], 2))
        for bars in axes.collections
        for path in bars.get_paths()
    )
    assert bars == [(42.3, 43.1), (44.8, 45.6)]


def loss_rows(parameter: str, values: list[Any]) -> list[Row]:
    """Return a student for each of two losses and each value of another setting."""
    return [
        row("student", 0.4, loss=loss, group=f"{loss}{value}", swept={parameter: value})
        for loss in ("mse", "cosine")
        for value in values
    ]


def points(aggregates: list[Aggregate], key: str) -> dict[str, Mark]:
    """Return the mark of each aggregate along a swept key, by its label."""
    axis = next(axis for axis in swept_axes(aggregates) if axis.key == key)
    series = with_marks(series_along(aggregates, axis), marks(aggregates))
    return {
        a.label: mark for its in series for a, mark in zip(its.aggregates, its.points, strict=True)
    }


def test_an_aggregate_has_the_mark_of_the_other_figures() -> None:
    aggregates = read_aggregates(stride_results())
    crossed = aggregates_of(loss_rows("student.schedule", ["constant", "one_cycle"]))
    epochs = aggregates_of([r for r in loss_rows("student.epochs", [2, 4, 8]) if r.loss == "mse"])

    assert points(aggregates, "stride_px").items() <= marks(aggregates).items()
    assert points(aggregates, "trainable").items() <= marks(aggregates).items()
    assert points(crossed, "loss") == marks(crossed)
    assert points(epochs, "student.epochs") == marks(epochs)


def test_lines_of_one_method_that_cross_an_axis_differ_in_their_marks() -> None:
    aggregates = aggregates_of(loss_rows("student.epochs", [2, 4, 8]))

    found = points(aggregates, "student.epochs")

    assert {len({m for name, m in found.items() if loss in name}) for loss in ("mse", "cos")} == {1}
    assert len(set(found.values())) == 2


@pytest.mark.parametrize("axis", range(2))
def test_several_resolutions_are_facets_with_their_own_titles(axis: int) -> None:
    rows = [
        replace(r, eval_short_side_px=side, loss=loss, group=loss)
        for side in (128, 256, 512)
        for loss in ("mse", "cosine")
        for r in students("all", 38, n_seeds=2)
    ]
    rows += [teacher(s, 40, eval_short_side_px=side) for s in (8, 16) for side in (128, 256, 512)]
    aggregates = aggregates_of(rows)
    by_name: dict[str, Any] = {axis.name: axis for axis in swept_axes(aggregates)}

    figure = drawn(aggregates, by_name[("accuracy_vs_loss", "accuracy_vs_stride")[axis]])

    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"short side {side} px" for side in (128, 256, 512)]
