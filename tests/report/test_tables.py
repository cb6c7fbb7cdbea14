"""Tables: which columns and rows they have, compared with their whole text in Markdown."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from spar_bench.errors import UnknownName
from spar_bench.report import text
from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.columns import chosen
from spar_bench.report.page import Source
from spar_bench.report.renderers.latex import to_latex
from spar_bench.report.renderers.markdown import to_markdown
from spar_bench.report.tables import notes, result_tables
from spar_bench.results import Cost, Row, Training
from tests.report.synthetic import baseline, cost, results_of, row, students, teacher, training

STATES: list[Row] = [
    baseline(38.3, cost=cost(0.9, latency_ms=7)),
    teacher(64, 44.04, cost=Cost(n_windows=20, gflops=2.6, params_m=1.3)),
    row("teacher", None, stride_px=12, status="failed", group="f", cost=Cost(cost_status="failed")),
    row("teacher", None, stride_px=8, status="blocked", group="b"),
    row("teacher", None, stride_px=4, status="not_measured", group="n"),
    *students("all", 44.0),
]


def test_markdown_says_failed_blocked_and_not_measured_in_different_words() -> None:
    (table,) = result_tables(read_aggregates(results_of(STATES)))

    written = to_markdown(table).splitlines()

    assert written[0] == (
        "**Accuracy and cost: patchwork, short side 256 px, backbone patchwork, "
        "type float32, window 64 px, average logits, trained all, "
        "loss mse, trained at 128–320 px**"
    )
    same = "6.84–7.92 | 240 | 1.30 |"
    nothing = "not measured | not measured"
    assert written[2:] == [
        "| Method | Stride (px) | mIoU (%) | Windows | GFLOPs | Latency (ms) | p10–p90 (ms) "
        "| Peak (MiB) | Parameters (M) |",
        "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
        "| single pass | – | 38.3 | 1 | 0.900 | 7.00 | 6.65–7.70 | 240 | 1.30 |",
        f"| sliding window | 64 | **44.0** | 20 | 2.60 | {nothing} | not measured | 1.30 |",
        "| sliding window | 12 | failed |" + " failed |" * 6,
        f"| sliding window | 8 | blocked | 1 | 0.900 | 7.20 | {same}",
        f"| sliding window | 4 | not measured | 1 | 0.900 | 7.20 | {same}",
        f"| SPAR | 12 | **44.0** ± 0.4 (n = 3) | 1 | 0.900 | 7.20 | {same}",
    ]


def test_a_training_size_whose_ends_are_equal_is_one_number() -> None:
    (table,) = result_tables(
        read_aggregates(results_of(students("all", 45, train_short_side_px=(96, 96))))
    )

    assert ", trained at 96 px, " in table.caption


def test_the_note_says_which_best_is_bold_and_what_a_protocol_is() -> None:
    aggregates = read_aggregates(results_of([baseline(38), *students("all", 45)]))
    (table,) = result_tables(aggregates)

    bold = {
        header
        for row in table.rows
        for header, cell in zip(table.headers, row, strict=True)
        if cell.is_best
    }
    assert bold == {"mIoU (%)"}
    assert "the best of each mIoU column in bold" in notes(aggregates)[0]


def test_the_note_says_the_size_of_the_image_of_each_cost() -> None:
    def sized(dataset: str, side: int, height: int) -> Row:
        size = replace(cost(1), image_h=height, image_w=320)
        key = {"evaluate": f"{dataset}{side}"}
        return baseline(38, dataset=dataset, eval_short_side_px=side, cost=size, stages=key)

    one = [sized("x", 256, 256)]
    several = [*one, sized("x", 128, 128), sized("y", 256, 256)]
    unknown = [baseline(38, cost=Cost())]

    assert (
        "Costs are for one image of 256×320 px; 1 MAC" in notes(read_aggregates(results_of(one)))[0]
    )
    assert (
        "Costs are for one image (128×320 px for x at 128 px, "
        "256×320 px for x at 256 px and y at 256 px); 1 MAC"
    ) in notes(read_aggregates(results_of(several)))[0]
    assert "Costs are for one image; 1 MAC" in notes(read_aggregates(results_of(unknown)))[0]


def trained(name: str, train_gflops: float | None, **changes: Any) -> list[Row]:
    """Return the rows of a student that took this, over three seeds."""
    took = training(train_gflops, **changes)
    return students(name, 44, cost=cost(0.9), training=took)


def test_what_students_took_is_a_group_of_columns_that_others_have_no_part_in() -> None:
    rows = [baseline(38), *trained("all", 800, epochs=8), *trained("last_2_blocks", 400)]
    rows[1] = replace(rows[1], training=replace(rows[1].training, train_seconds=130.0))

    (table,) = result_tables(read_aggregates(results_of(rows)))

    group, width = table.groups[-1]
    assert (group, width) == ("Training", 4)
    assert table.headers[-4:] == ["Epochs", "Targets (GFLOPs)", "Student (GFLOPs)", "Time (s)"]
    assert [[cell.text for cell in line[-4:]] for line in table.rows] == [
        ["–"] * 4,
        ["8", "1600", "800", "110"],  # (130 + 100 + 100) / 3
        ["4", "800", "400", "50.0"],
    ]
    assert table.caption.endswith(", training images 200, trained parameters 0.400 M")
    assert notes(read_aggregates(results_of(rows)))[1].startswith("Training is the mean over seeds")


def test_students_trained_elsewhere_have_no_part_in_training_and_resumed_ones_no_time() -> None:
    imported = students("all", 45, n_seeds=1, checkpoint="spar.ckpt", training=Training())
    resumed = trained("last_2_blocks", 400, train_seconds=None)

    (table,) = result_tables(read_aggregates(results_of([*imported, *resumed])))

    assert "Time (s)" not in table.headers
    assert [line[-1].text for line in table.rows] == ["–", "400"]
    assert "Not measured: training time." in notes(read_aggregates(results_of(resumed)))
    assert not any(h in table.headers for h in ("Training", "Time (s)"))


def test_training_of_several_panels_is_one_table_of_students() -> None:
    rows = [
        replace(one, dataset=name, stages={"evaluate": f"{name} {one.trial}"})
        for name in ("x", "y")
        for one in [baseline(38), *trained("all", 800), *trained("last_2_blocks", 400)]
    ]

    *_, table = result_tables(read_aggregates(results_of(rows)))

    assert table.caption.startswith("Training: backbone patchwork, ")
    assert [[line[0].text, line[-2].text] for line in table.rows] == [
        ["SPAR", "800"],
        ["SPAR", "400"],
    ]


def test_what_was_not_measured_at_all_has_no_column_and_the_notes_say_so_once() -> None:
    untimed = [
        replace(one, cost=replace(cost(0.9), latency_p10_ms=None, latency_p50_ms=None,
                                  latency_p90_ms=None, peak_mib=None, cost_status="not_measured"))
        for one in (baseline(38), teacher(12, 45))
    ]  # fmt: skip
    several = [*untimed, replace(untimed[0], dataset="other", stages={"evaluate": "other"})]

    untimed[1] = replace(
        untimed[1], cost=replace(untimed[1].cost, n_windows=9, gflops=8.1, params_m=1.4)
    )

    (table,) = result_tables(read_aggregates(results_of(untimed)))

    assert table.headers[1:] == ["mIoU (%)", "Windows", "GFLOPs", "Parameters (M)"]
    assert notes(read_aggregates(results_of(untimed)))[1:] == [
        "Not measured: latency, peak memory."
    ]
    captions = [
        t.caption.split(":")[0] for t in result_tables(read_aggregates(results_of(several)))
    ]
    assert captions == ["Accuracy", "Operations"]
    assert notes(read_aggregates(results_of(several)))[1:] == ["Not measured: latency."]
    assert len(notes(read_aggregates(results_of(STATES)))) == 1


def test_latency_under_load_is_marked_and_the_notes_say_so_in_one_sentence() -> None:
    loaded = replace(cost(0.9, latency_ms=7140), latency_note="its median is 10.3 times ...")
    rows = [baseline(38), teacher(12, 45, cost=loaded)]

    (table,) = result_tables(read_aggregates(results_of(rows)))

    at = table.headers.index("Latency (ms)")
    assert [row[at].text for row in table.rows] == ["7.20", "7140†"]
    assert notes(read_aggregates(results_of(rows)))[1:] == [
        "† Latency as on a loaded machine, for 1 of 2 rows: latency_note in results.csv says why; "
        "`spar-bench sweep --retime` times them again."
    ]


def test_latencies_of_several_window_batches_are_not_mixed_silently() -> None:
    single, usual, halved = (replace(cost(0.9), window_batch=size) for size in (None, 256, 32))
    rows = [baseline(38, cost=single), teacher(12, 45, cost=usual), teacher(16, 44, cost=halved)]

    assert notes(read_aggregates(results_of(rows)))[1:] == [
        "Memory ran out while timing: windows were encoded 32 or 256 at once, as window_batch in "
        "results.csv says."
    ]
    assert len(notes(read_aggregates(results_of(rows[:2])))) == 1


def test_some_failed_seeds_are_said_in_the_cell() -> None:
    rows = students("all", 45)
    rows[2] = replace(rows[2], miou=None, status="blocked")

    (table,) = result_tables(read_aggregates(results_of(rows)))

    assert "| **44.8** ± 0.3 (n = 2, 1 blocked) |" in to_markdown(table)


def test_several_resolutions_have_a_column_each_with_its_own_best() -> None:
    rows = [
        baseline(40, eval_short_side_px=128, stages={"evaluate": "a"}),
        baseline(30, eval_short_side_px=256, stages={"evaluate": "b"}),
        teacher(8, 35, eval_short_side_px=256),
    ]

    tables = result_tables(read_aggregates(results_of(rows)))

    assert [table.caption.split(":")[0] for table in tables] == [
        "Accuracy",
        "Operations",
        "Latency",
    ]
    assert to_markdown(tables[0]).splitlines()[2:] == [
        "| Method | mIoU (%), short side 128 px | mIoU (%), short side 256 px |",
        "| --- | --: | --: |",
        "| single pass | **40.0** | 30.0 |",
        "| sliding window | – | **35.0** |",
    ]
    latex = to_latex(tables[0], "x", notes=[])
    assert r"\multicolumn{1}{c}{short side 128 px}" in latex
    assert r"\cmidrule(lr){2-2}\cmidrule(lr){3-3}" in latex


def test_what_all_lines_have_alike_is_in_the_caption_and_not_in_a_column() -> None:
    slow = replace(cost(0.9), latency_p50_ms=9.0)
    rows = [*students("all", 45), *students("last_2_blocks", 44, cost=slow)]

    (table,) = result_tables(read_aggregates(results_of(rows)))

    assert table.headers == ["Method", "Trained", "mIoU (%)", "Latency (ms)"]
    for said in ("stride 12 px", "windows 1", "operations 0.900 GFLOPs", "parameters 1.30 M"):
        assert said in table.caption


def test_a_single_line_keeps_its_columns_and_so_does_what_failed_everywhere() -> None:
    failed = Cost(cost_status="failed")
    rows = [baseline(38, cost=failed), teacher(12, 45, cost=failed)]

    (single,), (both,) = (
        result_tables(read_aggregates(results_of(some))) for some in ([baseline(38)], rows)
    )

    assert single.headers[1:4] == ["mIoU (%)", "Windows", "GFLOPs"]
    assert both.headers[1:4] == ["mIoU (%)", "Windows", "GFLOPs"]


def on(dataset: str, percents: Mapping[str, float], **changes: Any) -> list[Row]:
    """Return a single pass and students of three seeds on a data set, by name of the method."""
    rows = []
    for name, percent in percents.items():
        made = [baseline(percent)] if name == "single" else students(name, percent)
        rows += [replace(one, dataset=dataset, miou=percent / 100 + 0.01 * (one.seed or 0) * spread,
                         stages={"evaluate": f"{dataset} {name} {one.seed} {changes}"}, **changes)
                 for spread in [1 if dataset == "x" else -1] for one in made]  # fmt: skip
    return rows


def test_several_data_sets_have_a_mean_in_the_last_column_where_all_cells_exist() -> None:
    x, y = {"single": 30.0, "all": 40.0, "last_2_blocks": 39.0}, {"single": 20.0, "all": 50.0}
    rows = [*on("x", x), *on("y", y)]

    table, *_ = result_tables(read_aggregates(results_of(rows)))

    assert table.groups[-1] == ("Mean", 1)
    cells = [line[-1] for line in table.rows]
    assert [cell.text for cell in cells] == ["25.0", "45.0", "–"]
    assert [cell.is_best for cell in cells] == [False, True, False]
    assert cells[1].sd == pytest.approx(0, abs=1e-12)  # seed by seed, x rises as y falls
    assert cells[1].n == 3
    own = [cell.spread[0] for cell in (table.rows[1][-2], table.rows[1][-3])]
    assert own == ["± 1.0", "± 1.0"]


def test_a_mean_is_of_the_seeds_that_finished_on_all_data_sets() -> None:
    rows = [*on("x", {"single": 30.0, "all": 40.0}), *on("y", {"single": 20.0, "all": 50.0})]
    rows[-1] = replace(rows[-1], status="failed", miou=None)

    table, *_ = result_tables(read_aggregates(results_of(rows)))

    mean = table.rows[1][-1]
    assert (mean.text, mean.spread) == ("45.0", ["± 0.0", "(n = 2, 1 failed)"])
    assert mean.source == Source("miou", (1, 2, 3, 5, 6))


def test_a_mean_over_data_sets_is_taken_at_each_resolution_they_share() -> None:
    rows = [
        one
        for name, side in (("x", 64), ("x", 96), ("y", 64), ("y", 96), ("x", 128))
        for one in on(name, {"single": side / 2}, eval_short_side_px=side)
    ]

    table, *_ = result_tables(read_aggregates(results_of(rows)))

    assert table.groups[-2:] == [("Mean, short side 64 px", 1), ("Mean, short side 96 px", 1)]
    assert [cell.text for cell in table.rows[0][-2:]] == ["32.0", "48.0"]


def test_columns_that_are_asked_for_come_in_their_order_and_are_never_left_out() -> None:
    rows = [baseline(38), *trained("all", 800)]
    asked = chosen(["latency", "miou", "epochs", "windows", "train_gflops"])

    (table,) = result_tables(read_aggregates(results_of(rows)), asked)

    assert table.headers == [
        "Method", "Latency (ms)", "mIoU (%)", "Epochs", "Windows", "Student (GFLOPs)",
    ]  # fmt: skip
    assert table.groups == [("", 1), ("", 2), ("Training", 1), ("", 1), ("Training", 1)]


def test_of_several_panels_the_tables_that_are_asked_for_are_there() -> None:
    rows = [*on("x", {"single": 30.0, "all": 40.0}), *on("y", {"single": 20.0, "all": 50.0})]

    tables = result_tables(read_aggregates(results_of(rows)), chosen(["peak", "miou"]))

    assert [table.caption.split(":")[0] for table in tables] == ["Peak memory", "Accuracy"]


def test_costs_of_several_devices_name_theirs() -> None:
    rows = [baseline(38), teacher(12, 45), teacher(8, 46)]
    rows[1] = replace(rows[1], cost=replace(rows[1].cost, device="NVIDIA H200"))
    rows[2] = replace(rows[2], cost=Cost(cost_status="not_measured"))

    [table] = result_tables(read_aggregates(results_of(rows)), chosen(["latency", "gflops"]))

    assert [row[-2].text for row in table.rows] == [
        f"{text.significant(rows[0].cost.latency_p50_ms or 0)} (cpu)",
        f"{text.significant(rows[1].cost.latency_p50_ms or 0)} (NVIDIA H200)",
        "not measured",
    ]
    assert "(" not in table.rows[0][-1].text


def test_a_legend_says_only_what_the_columns_need() -> None:
    rows = [baseline(38), teacher(12, 45)]

    legends = [
        result_tables(read_aggregates(results_of(rows)), chosen(keys))[0].legend
        for keys in (["miou"], ["gflops"], ["miou", "params"])
    ]

    assert legends == [
        "mIoU in percent, best in bold.",
        "Costs for one image of 256×320 px; 1 MAC = 2 FLOPs.",
        "mIoU in percent, best in bold; costs for one image of 256×320 px.",
    ]


def test_a_column_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(UnknownName, match=r"^--columns: must be a known name, but got 'miuo'"):
        chosen(["gflops", "miuo"])


def test_several_data_sets_and_resolutions_are_both_named() -> None:
    rows = [
        baseline(40, dataset=name, eval_short_side_px=side, stages={"evaluate": f"{name}{side}"})
        for name in ("x", "y")
        for side in (64, 96)
    ]

    table = result_tables(read_aggregates(results_of(rows)))[0]

    assert [name for name, _ in table.groups[1:-2]] == [
        "x, short side 64 px",
        "x, short side 96 px",
        "y, short side 64 px",
        "y, short side 96 px",
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0123456, "0.0123"),
        (0.9, "0.900"),
        (9.999, "10.00"),
        (12.34, "12.3"),
        (3312.4, "3312"),
        (0, "0"),
    ],
)
def test_numbers_have_three_digits_and_no_powers_of_ten(value: float, words: str) -> None:
    assert text.significant(value) == words


def test_names_with_odd_letters_stay_harmless() -> None:
    odd = "a_$b$ {c}|\n<d>\\"

    assert text.latex(odd) == (
        r"a\_\$b\$ \{c\}\textbar{} \textless{}d\textgreater{}\textbackslash{}"
    )
    assert text.markdown(odd) == r"a\_$b$ {c}\| \<d\>\\"
    assert text.plot(odd) == r"a_\$b\$ {c}| <d>" + "\\"
    assert text.file_name("../x y/ä") == "x_y"
    assert text.file_name("…") == "unnamed"


@pytest.mark.parametrize(
    ("fraction", "written"),
    [(0.0123, "+1.2"), (-0.0123, "-1.2"), (-0.0004, "0.0"), (0.0004, "0.0"), (-0.0006, "-0.1")],
)
def test_a_difference_has_a_sign_unless_it_rounds_to_nothing(fraction: float, written: str) -> None:
    assert text.points(fraction) == written
