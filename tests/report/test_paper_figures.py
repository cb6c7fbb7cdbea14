"""Figures in the paper's form, of any sweep: which there are, what they show, what they replace."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from spar_bench.report.aggregates import Aggregate, Panel, read_aggregates
from spar_bench.report.figures import plan_figures
from spar_bench.report.labels import LABEL_GID
from spar_bench.report.means import over_panels, summed_panels
from spar_bench.report.plans import FigurePlan
from spar_bench.report.stride_figure import ARROW, stride_stories
from spar_bench.report.style import house_style
from spar_bench.results import Results, Row
from tests.report.rehearsal import rehearsed
from tests.report.synthetic import (
    InMemory,
    baseline,
    cost,
    imported,
    results_of,
    stride_results,
    students,
    teacher,
)


def plans_of(results: Results) -> dict[str, FigurePlan]:
    """Return the figures that results call for, by name."""
    plans = plan_figures(results, read_aggregates(results), InMemory())
    return {plan.name: plan for plan in plans}


def drawn(results: Results, name: str) -> Figure:
    """Draw the figure of this name, laid out."""
    with house_style():
        figure = plans_of(results)[name].draw()
        figure.draw_without_rendering()
    return figure


def words_of(figure: Figure) -> set[str]:
    return {note.get_text() for axes in figure.axes for note in axes.texts}


def resolution_rows(*sides: int) -> list[Row]:
    """Return single pass, teacher and student at resolutions of 4:5 images."""
    rows = []
    for side in sides:
        size = replace(cost(side / 256), image_h=side, image_w=side * 5 // 4)
        rows += [
            replace(row, eval_short_side_px=side, stages={"evaluate": f"{n}/{side}"})
            for n, row in enumerate(
                [baseline(30 + side / 100, cost=size), teacher(12, 40, cost=size),
                 *students("all", 38, n_seeds=2, cost=size)]
            )
        ]  # fmt: skip
    return rows


def on(dataset: str, rows: list[Row], more: float) -> list[Row]:
    """Return rows as on another data set, with another mIoU."""
    return [
        replace(
            row,
            dataset=dataset,
            dataset_digest=dataset,
            miou=None if row.miou is None else row.miou + more,
            stages={"evaluate": f"{dataset}/{row.stages['evaluate']}"},
        )
        for row in rows
    ]


def test_three_strides_with_single_pass_and_a_student_have_a_figure_of_strides() -> None:
    rows = [baseline(38), *(teacher(s, 40 + s / 4) for s in (8, 12, 16)), *students("all", 42)]

    assert "stride_figure" in plans_of(results_of(rows))
    for without in (rows[1:], rows[:-3], [rows[0], *rows[2:]]):
        assert "stride_figure" not in plans_of(results_of(without))


def test_it_takes_the_place_of_the_figure_that_would_show_the_same() -> None:
    timed = plans_of(stride_results())
    untimed = [
        replace(row, cost=replace(row.cost, latency_p50_ms=None)) for row in stride_results().rows
    ]
    more = plans_of(results_of([*stride_results().rows, teacher(20, 45, window_px=80)]))

    assert {"stride_figure", "accuracy_vs_gflops"} <= timed.keys()
    assert "accuracy_vs_latency" not in timed
    assert "accuracy_vs_gflops" not in plans_of(results_of(untimed))
    assert {"stride_figure", "accuracy_vs_gflops", "accuracy_vs_latency"} <= more.keys()


def test_times_of_two_devices_are_not_on_one_axis() -> None:
    results = stride_results()
    rows = [
        replace(row, cost=replace(row.cost, device="another")) if row.method == "teacher" else row
        for row in results.rows
    ]

    words = words_of(drawn(results_of(rows), "stride_figure"))

    assert any(word.endswith("fewer GFLOPs") for word in words)
    assert not any(word.endswith("faster") for word in words)


def test_the_arrows_are_the_best_students_gain_and_its_ratio_of_times() -> None:
    figure = drawn(stride_results(), "stride_figure")

    # SPAR all: 45.2 over 38.3; its teacher, stride 12, takes 8 * 0.13 * 425 ms, one pass 7.2 ms.
    words = words_of(figure)
    n_windows = (-(-192 // 12) + 1) * (-(-256 // 12) + 1)
    assert {"+6.9 mIoU", f"{0.13 * n_windows / 0.9:.0f}× faster"} <= words
    assert len([line for line in figure.axes[0].get_lines() if line.get_gid() == ARROW]) == 2


def test_student_from_elsewhere_is_compared_with_the_best_teacher() -> None:
    rows = [*stride_results().rows, imported(47)]
    results = results_of(rows)

    [strides] = stride_stories(results, read_aggregates(results))

    assert strides.best.label == "SPAR spar.ckpt"
    best = max(strides.teachers, key=lambda each: each.miou or 0)
    assert strides.its_teacher == best
    assert best != strides.teachers[0]


def test_a_student_that_loses_is_said_to_lose() -> None:
    rows = [
        baseline(38, cost=cost(200)),
        *(teacher(s, 40) for s in (8, 12, 16)),
        *students("all", 36, cost=cost(200)),
    ]

    words = words_of(drawn(results_of(rows), "stride_figure"))

    assert "-2.0 mIoU" in words
    assert any(word.endswith("× slower") for word in words)


def test_without_times_the_axis_is_of_operations_and_says_so() -> None:
    rows = [
        replace(row, cost=replace(row.cost, latency_p50_ms=None)) for row in stride_results().rows
    ]

    figure = drawn(results_of(rows), "stride_figure")

    title = "GFLOPs of one image of 256×320 px (time not measured)"
    assert figure.axes[0].get_xlabel() == title
    label = figure.axes[0].xaxis.label.get_window_extent()
    assert 0 <= label.x0 < label.x1 <= figure.bbox.width
    assert any(word.endswith("× fewer GFLOPs") for word in words_of(figure))
    assert "nothing was timed" in plans_of(results_of(rows))["stride_figure"].caption


@pytest.mark.parametrize(
    "results", [stride_results(), rehearsed("stride_figure")], ids=["embedded", "paper"]
)
def test_labels_cover_no_other_and_no_mark_and_stay_inside(results: Results) -> None:
    figure = drawn(results, "stride_figure")

    [axes] = figure.axes
    notes = [note for note in axes.texts if note.get_gid() == LABEL_GID]
    boxes = [note.get_window_extent() for note in notes]
    assert len(boxes) >= 12
    assert not [a for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    bars = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    marks = axes.transData.transform(np.concatenate([one.lines[0].get_xydata() for one in bars]))
    assert not [box for box in boxes if any(box.contains(x, y) for x, y in marks)]
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)


def test_accuracy_is_the_mean_over_data_sets_at_the_cost_of_the_largest_image() -> None:
    small = [
        replace(row, cost=replace(row.cost, image_h=64, image_w=64))
        for row in stride_results().rows
    ]
    results = results_of([*stride_results().rows, *on("streets", small, 0.10)])

    [axes] = drawn(results, "stride_figure").axes

    assert axes.get_ylabel() == "Mean mIoU over 2 data sets (%)"
    assert axes.get_xlabel() == "Time of one image of 256×320 px (s)"
    bars = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    single = float(np.asarray(bars[0].lines[0].get_ydata())[0])
    assert single == pytest.approx(43.3)
    assert {"accuracy_vs_latency_patchwork", "accuracy_vs_latency_streets"} <= plans_of(
        results
    ).keys()


def test_three_resolutions_have_a_figure_of_resolutions_in_place_of_the_plain_one() -> None:
    three = plans_of(results_of(resolution_rows(128, 256, 384)))
    two = plans_of(results_of(resolution_rows(128, 256)))

    assert "resolution_figure" in three
    assert "accuracy_vs_resolution" not in three
    assert "accuracy_vs_resolution" in two
    assert "resolution_figure" not in two


def test_both_panels_are_against_the_side_of_the_square_with_as_many_pixels() -> None:
    figure = drawn(results_of(resolution_rows(128, 256, 384)), "resolution_figure")

    accuracy, time = figure.axes
    line, times = (np.asarray(axes.get_lines()[0].get_xydata()) for axes in (accuracy, time))
    sides = [(side * side * 5 / 4) ** 0.5 for side in (128, 256, 384)]
    np.testing.assert_allclose(line, np.column_stack([sides, [31.28, 32.56, 33.84]]))
    np.testing.assert_allclose(times, np.column_stack([sides, [0.004, 0.008, 0.012]]))
    assert [label.get_text() for label in time.get_xticklabels()] == ["143²", "286²", "429²"]
    assert (time.get_yscale(), time.get_ylabel()) == ("log", "Time of one image (s)")


def test_a_resolution_that_did_not_finish_is_a_gap_in_accuracy_alone() -> None:
    rows = resolution_rows(128, 256, 384, 512)
    rows[-4] = replace(rows[-4], miou=None, status="failed")

    accuracy, time = drawn(results_of(rows), "resolution_figure").axes

    assert [len(np.asarray(axes.get_lines()[0].get_xdata())) for axes in (accuracy, time)] == [3, 4]


def test_single_passes_of_two_backbones_differ_in_mark_and_line() -> None:
    figure = drawn(rehearsed("resolution_figure"), "resolution_figure")

    [legend] = figure.legends
    names = [entry.get_text() for entry in legend.get_texts()]
    lines = dict(zip(names, legend.get_lines(), strict=True))
    own, naflex = (lines[f"single pass, siglip2-b16-{name}"] for name in ("512", "naflex"))
    assert (own.get_marker(), own.get_linestyle()) == ("s", "-")
    assert (naflex.get_marker(), naflex.get_linestyle()) == ("*", ":")


def means(rows: list[Row]) -> list[Aggregate]:
    results = results_of(rows)
    aggregates = read_aggregates(results)
    return over_panels(aggregates, summed_panels(results, aggregates))


def test_a_mean_keeps_seeds_apart_and_leaves_out_one_that_lacks_a_data_set() -> None:
    here = students("all", 40)
    there = on("streets", here, 0.2)
    there[2] = replace(there[2], miou=None, status="failed")

    [mean] = means([*here, *there])

    np.testing.assert_allclose(mean.mious, [0.496, 0.50])


def test_what_lacks_a_data_set_has_no_mean() -> None:
    found = means([baseline(38), teacher(12, 40), *on("streets", [baseline(40)], 0)])

    assert [each.method for each in found] == ["pretrained"]
    assert found[0].miou == pytest.approx(0.39)


def test_data_sets_at_several_resolutions_have_no_mean_unless_a_table_says_which() -> None:
    results = results_of(resolution_rows(128, 256, 384))
    named = rehearsed("main_table")
    [voc, *_] = [row for row in named.rows if row.dataset == "voc21"]
    further = replace(voc, eval_short_side_px=448, stages={"evaluate": "448"})
    more = replace(named, rows=[*named.rows, further])

    assert summed_panels(results, read_aggregates(results)) == []
    assert stride_stories(results, read_aggregates(results)) == []
    panels = summed_panels(more, read_aggregates(more))
    assert len(panels) == 6
    assert Panel("voc21", 672) in panels
