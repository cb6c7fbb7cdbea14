"""Accuracy against cost: the front, the marks, and labels that never overlap."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from spar_bench.report.aggregates import Aggregate, read_aggregates
from spar_bench.report.figures import GFLOPS, LATENCY, TRAINING, plan_figures
from spar_bench.report.labels import LABEL_GID, MARGIN_PT
from spar_bench.report.style import DIVIDES, DOES_NOT_DIVIDE, house_style, marks
from spar_bench.report.tradeoff import named_of_all, pareto_front, tradeoff_figure
from spar_bench.results import Results, Row
from tests.report.synthetic import (
    InMemory,
    baseline,
    cost,
    paper_results,
    results_of,
    row,
    stride_results,
    students,
    teacher,
    training,
)


def many_students() -> Results:
    """Return fourteen students of one cost, half a point apart."""
    rows = [baseline(38), teacher(12, 46)]
    for i in range(14):
        rows += students(f"last_{i + 1}_blocks", 39 + i / 2, stages={"evaluate": f"s{i}"})
    return results_of(rows)


def close_strides() -> Results:
    """Return ten strides whose points almost coincide."""
    rows = [
        teacher(s, 40 + 0.02 * s, cost=cost(10 + 0.1 * s), stages={"evaluate": f"t{s}"})
        for s in range(2, 12)
    ]
    return results_of([*rows, baseline(40.1, cost=cost(10.3))])


def resolutions() -> Results:
    """Return two facets with students of three seeds."""
    rows = []
    for side in (128, 256):
        rows += [baseline(30, eval_short_side_px=side, stages={"evaluate": f"p{side}"})]
        for name in ("all", "last_2_blocks"):
            rows += [
                replace(r, stages={"evaluate": f"{name}{side}{r.seed}"})
                for r in students(name, 40, eval_short_side_px=side)
            ]
    return results_of(rows)


def label_boxes(figure: Figure) -> dict[int, list[tuple[str, tuple[float, ...]]]]:
    """Return each label and its extent in pixels, by the number of its facet."""
    return {
        number: [
            (note.get_text(), note.get_window_extent().extents)
            for note in axes.texts
            if isinstance(note, Annotation) and note.get_gid() == LABEL_GID
        ]
        for number, axes in enumerate(figure.axes)
    }


@pytest.mark.parametrize(
    ("results", "n_labels"),
    [
        (paper_results, 12),
        (stride_results, 10),
        (many_students, 16),
        (close_strides, 11),
        (resolutions, 6),
        (lambda: results_of([baseline(38.3)]), 1),
    ],
)
def test_every_point_has_a_label_that_covers_no_other_and_stays_inside(
    results: Callable[[], Results], n_labels: int
) -> None:
    with house_style():
        figure = tradeoff_figure(read_aggregates(results()), GFLOPS)
        figure.draw_without_rendering()
        boxes = label_boxes(figure)

    assert sum(len(labels) for labels in boxes.values()) == n_labels
    for number, labels in boxes.items():
        margin = 0.9 * MARGIN_PT * figure.dpi / 72
        left, bottom, right, top = figure.axes[number].bbox.padded(-margin).extents
        for (_, a), (_, b) in itertools.combinations(labels, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        for _, box in labels:
            assert left <= box[0]
            assert bottom <= box[1]
            assert box[2] <= right
            assert box[3] <= top


def test_labels_name_points_as_the_papers_figure_does() -> None:
    with house_style():
        figure = tradeoff_figure(read_aggregates(paper_results()), LATENCY)

    names = {name for name, _ in label_boxes(figure)[0]}
    assert {"single pass", "SPAR last 2 blocks", "s = 512", "s = 24"} <= names
    assert figure.axes[0].get_xscale() == "log"


def test_too_many_points_are_labelled_where_it_matters() -> None:
    rows = [
        row("student", (30 + i) / 100, group=f"g{i}", trial=f"t{i}", cost=cost(1 + i % 5),
            swept={"student.epochs": i}, stages={"evaluate": f"e{i}"})
        for i in range(30)
    ]  # fmt: skip

    with house_style():
        figure = tradeoff_figure(read_aggregates(results_of(rows)), GFLOPS)

    names = {name for name, _ in label_boxes(figure)[0]}
    assert names == {f"SPAR epochs = {i}" for i in (25, 26, 27, 28, 29)}


def many_lines(n: int) -> Results:
    """Return strides whose every line has its best at the finest, and one that is the best."""
    rows = [baseline(30)]
    for i in range(n):
        for stride, percent in ((64, 40), (32, 41), (8, 42)):
            key = f"t{stride} {i}"
            rows.append(
                teacher(stride, percent - 0.01 * i, group=key, trial=key, stages={"evaluate": key},
                        swept={"teacher.stride_px": stride, "teacher.upsample": i})
            )  # fmt: skip
    return results_of(rows)


@pytest.mark.parametrize(("n_lines", "n_named"), [(5, 16), (8, 11), (100, 4)])
def test_of_too_many_lines_only_the_front_is_named_and_the_caption_says_so(
    n_lines: int, n_named: int
) -> None:
    results = many_lines(n_lines)
    aggregates = read_aggregates(results)

    with house_style():
        figure = tradeoff_figure(aggregates, GFLOPS)
    caption = names_and_captions(results)["accuracy_vs_gflops"]

    names = {name for name, _ in label_boxes(figure)[0]}
    assert {"single pass", *(f"upsample = 0, s = {s}" for s in (64, 32, 8))} <= names
    assert named_of_all(aggregates, GFLOPS) == (n_named, 1 + 3 * n_lines)
    told = f"of {1 + 3 * n_lines} points, the best are named, {n_named} at most"
    assert (told in caption) is (n_lines > 5)


def on_two_devices() -> Results:
    """Return a teacher that was timed on another device than single pass and student."""
    rows = [baseline(38), *students("all", 44), teacher(12, 46)]
    rows[-1] = replace(rows[-1], cost=replace(rows[-1].cost, device="NVIDIA H200"))
    return results_of(rows)


def test_latencies_of_two_devices_are_in_facets_of_their_own() -> None:
    aggregates = read_aggregates(on_two_devices())

    with house_style():
        timed, counted = (tradeoff_figure(aggregates, axis) for axis in (LATENCY, GFLOPS))

    assert [axes.get_title() for axes in timed.axes] == ["cpu", "NVIDIA H200"]
    names = [{note.get_text() for note in axes.texts} for axes in timed.axes]
    assert names == [{"single pass", "SPAR all"}, {"s = 12"}]
    assert [axes.get_title() for axes in counted.axes] == [""]


def test_strides_that_divide_by_the_patch_differ_in_shape_and_colour() -> None:
    its_marks = marks(read_aggregates(stride_results()))

    assert its_marks["s = 16"] == DIVIDES
    assert its_marks["s = 12"] == DOES_NOT_DIVIDE
    assert DIVIDES.marker != DOES_NOT_DIVIDE.marker
    assert DIVIDES.color != DOES_NOT_DIVIDE.color


def test_students_have_a_mark_each_and_share_one_when_there_are_too_many() -> None:
    few, many = (marks(read_aggregates(results())) for results in (stride_results, many_students))

    assert few["SPAR all"] != few["SPAR last 2 blocks"]
    assert len({mark for name, mark in many.items() if name.startswith("SPAR")}) == 1


def test_pareto_front_by_hand() -> None:
    costs, mious = [3.0, 1.0, 2.0, 2.0, 4.0, 5.0], [0.5, 0.2, 0.1, 0.4, 0.5, 0.9]

    assert pareto_front(costs, mious) == [1, 3, 0, 5]


def test_pareto_front_equals_the_definition() -> None:
    rng = np.random.default_rng(0)
    costs, mious = rng.integers(1, 12, 40).astype(float), rng.integers(1, 12, 40).astype(float)

    front = pareto_front(list(costs), list(mious))

    def beaten(i: int) -> bool:
        no_worse = (costs <= costs[i]) & (mious >= mious[i])
        return bool((no_worse & ((costs < costs[i]) | (mious > mious[i]))).any())

    found = {(costs[i], mious[i]) for i in front}
    assert found == {(costs[i], mious[i]) for i in range(40) if not beaten(i)}


def legend_names(figure: Figure) -> list[str]:
    """Return the words of a figure's legend, if it has one."""
    return [words.get_text() for legend in figure.legends for words in legend.get_texts()]


@pytest.mark.parametrize(
    ("rows", "names", "front"),
    [
        ([baseline(21.1)], [], False),
        ([baseline(45), teacher(32, 21.2)], ["stride divides by patch"], False),
        ([baseline(21), teacher(32, 22)], ["stride divides by patch", "Pareto front"], True),
    ],
)
def test_legend_and_caption_name_a_pareto_front_only_if_there_is_one_to_see(
    rows: list[Row], names: list[str], front: bool
) -> None:
    results = results_of(rows)
    aggregates = read_aggregates(results)

    with house_style():
        figure = tradeoff_figure(aggregates, GFLOPS)
    caption = next(plan_figures(results, aggregates, InMemory())).caption

    assert legend_names(figure) == names
    assert ("Pareto" in caption) == front
    assert "joins the teacher's strides" not in caption  # of which there is one at most


@pytest.mark.parametrize(
    ("percents", "ends"),
    [((21.1, 21.2), (18.65, 23.65)), ((0.02, 0.05), (0.0, 5.0)), ((3.0, 3.0), (0.5, 5.5))],
)
def test_axis_of_miou_spans_five_points_at_least_and_is_never_below_0(
    percents: tuple[float, float], ends: tuple[float, float]
) -> None:
    rows = [baseline(percents[0]), teacher(32, percents[1])]

    with house_style():
        figure = tradeoff_figure(read_aggregates(results_of(rows)), GFLOPS)

    np.testing.assert_allclose(figure.axes[0].get_ylim(), ends)


def test_single_pass_shows_behind_a_student_of_the_same_cost_and_miou() -> None:
    rows = [*students("all", 38.7, n_seeds=1), baseline(38.3)]

    with house_style():
        figure = tradeoff_figure(read_aggregates(results_of(rows)), GFLOPS)
        figure.draw_without_rendering()

    points = [one for one in figure.axes[0].get_lines() if one.get_marker() in ("s", "^")]
    single_pass, student = points
    assert single_pass.get_marker() == "s"
    assert single_pass.get_zorder() <= student.get_zorder()
    assert single_pass.get_markersize() > student.get_markersize()
    assert not single_pass.get_clip_on()


def test_error_bars_span_one_standard_deviation_over_seeds() -> None:
    with house_style():
        figure = tradeoff_figure(read_aggregates(results_of(students("all", 45.2))), GFLOPS)

    (bar,) = (path for lines in figure.axes[0].collections for path in lines.get_paths())
    np.testing.assert_allclose(np.asarray(bar.vertices)[:, 1], [44.8, 45.6])


def test_an_aggregate_without_this_cost_is_left_out() -> None:
    without: list[Aggregate] = read_aggregates(results_of([baseline(38.3), teacher(8, 45)]))
    without[1] = replace(without[1], cost=replace(without[1].cost, gflops=None))

    with house_style():
        figure = tradeoff_figure(without, GFLOPS)

    assert [name for name, _ in label_boxes(figure)[0]] == ["single pass"]


def recipes(*gflops: float | None, teach_gflops: float | None = 300.0) -> Results:
    """Return students that differ in what they took, beside a baseline and a teacher."""
    rows = [baseline(38), teacher(12, 46)]
    for i, train_gflops in enumerate(gflops):
        took = training(train_gflops, teach_gflops=teach_gflops)
        key = f"last_{i + 1}_blocks"
        rows += students(key, 40 + i, cost=cost(0.9), training=took)
    return results_of(rows)


def names_and_captions(results: Results) -> dict[str, str]:
    plans = plan_figures(results, read_aggregates(results), InMemory())
    return {plan.name: plan.caption for plan in plans}


def test_accuracy_is_drawn_against_what_students_cost_with_their_targets() -> None:
    aggregates = read_aggregates(recipes(100.0, 400.0))

    with house_style():
        figure = tradeoff_figure(aggregates, TRAINING)
        mark_of = marks(aggregates)

    drawn = [c.lines[0] for c in figure.axes[0].containers if isinstance(c, ErrorbarContainer)]
    assert [float(x) for line in drawn for x in np.asarray(line.get_xdata())] == [400.0, 700.0]
    heights = [float(y) for line in drawn for y in np.asarray(line.get_ydata())]
    assert heights == pytest.approx([40.0, 41.0])
    assert [line.get_color() for line in drawn] == [
        mark_of["SPAR last block"].color,
        mark_of["SPAR last 2 blocks"].color,
    ]


@pytest.mark.parametrize(
    ("gflops", "is_drawn"),
    [((100, 400), True), ((100, 100), False), ((100,), False), ((None, None), False)],
)
def test_training_cost_is_drawn_where_two_students_differ_in_it(
    gflops: tuple[float | None, ...], is_drawn: bool
) -> None:
    assert ("accuracy_vs_training_cost" in names_and_captions(recipes(*gflops))) is is_drawn


def test_training_cost_says_if_targets_are_left_out() -> None:
    whole, alone = (
        names_and_captions(recipes(100.0, 400.0, teach_gflops=teach))["accuracy_vs_training_cost"]
        for teach in (300.0, None)
    )

    assert "training GFLOPs with targets" in whole
    assert "training GFLOPs without targets" in alone
