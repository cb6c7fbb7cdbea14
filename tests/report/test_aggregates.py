"""Rows become aggregates: seeds joined, shared evaluations shown once, distinct names."""

import statistics
from dataclasses import replace

import pytest

from spar_bench.report.aggregates import read_aggregates, stride_series
from spar_bench.report.names import setting_text, with_distinct_datasets
from tests.report.synthetic import (
    baseline,
    imported,
    paper_results,
    results_of,
    row,
    stride_results,
    students,
    teacher,
)


def test_a_baseline_shared_by_several_trials_is_one_aggregate() -> None:
    aggregates = read_aggregates(stride_results())

    assert [aggregate.label for aggregate in aggregates if aggregate.method == "pretrained"] == [
        "single pass"
    ]
    assert [aggregate.label for aggregate in aggregates if aggregate.method == "teacher"] == [
        f"s = {stride}" for stride in (64, 32, 28, 16, 12, 8, 4)
    ]


def test_seeds_are_joined_into_mean_sd_and_n() -> None:
    aggregate = next(a for a in read_aggregates(stride_results()) if a.label == "SPAR all")

    values = [0.448, 0.452, 0.456]
    assert aggregate.mious == pytest.approx(values)
    assert aggregate.miou == pytest.approx(statistics.fmean(values))
    assert aggregate.sd == pytest.approx(0.004)  # n - 1


def test_one_seed_has_no_standard_deviation() -> None:
    aggregates = read_aggregates(stride_results(n_seeds=1))

    assert {aggregate.sd for aggregate in aggregates} == {None}


def test_labels_are_those_of_the_papers_figure() -> None:
    labels = [aggregate.label for aggregate in read_aggregates(paper_results())]

    assert labels[:3] == ["single pass", "s = 512", "s = 256"]
    assert labels[-1] == "SPAR last 2 blocks"


def test_labels_say_what_varies_and_nothing_else() -> None:
    rows = students("all", 45, n_seeds=1, loss="mse", group="a")
    rows += students("all", 44, n_seeds=1, loss="cosine", group="b", stages={"evaluate": "x"})
    rows += [
        teacher(8, 46, window_px=w, group=f"w{w}", stages={"evaluate": f"w{w}"}) for w in (64, 32)
    ]

    labels = [aggregate.label for aggregate in read_aggregates(results_of(rows))]

    assert labels == ["w = 64, s = 8", "w = 32, s = 8", "SPAR mse", "SPAR cosine"]


def test_student_from_elsewhere_is_named_by_its_file_and_the_others_as_without_it() -> None:
    trained = [*students("last_2_blocks", 44), *students("all", 45)]
    rows = [*trained, imported(47), imported(48, "other.ckpt")]

    aggregates = read_aggregates(results_of(rows))

    expected = [each.label for each in read_aggregates(results_of(trained))]
    assert [each.label for each in aggregates] == [*expected, "SPAR spar.ckpt", "SPAR other.ckpt"]
    assert [each.is_imported for each in aggregates] == [False, False, True, True]
    assert aggregates[-1].settings["trainable"] == "imported: other.ckpt"


def test_a_label_leaves_out_what_an_axis_shows() -> None:
    aggregates = read_aggregates(stride_results())

    assert aggregates[1].label_without("stride_px") == "sliding window"
    assert aggregates[1].name == "teacher s = 64"


def test_a_swept_student_setting_does_not_split_the_baseline() -> None:
    rows = [
        baseline(38, group=f"lr{rate}", swept={"student.learning_rate": rate})
        for rate in (1e-3, 1e-4)
    ]

    (aggregate,) = read_aggregates(results_of(rows))

    assert aggregate.label == "single pass"


def test_a_swept_key_without_a_column_is_in_the_label() -> None:
    rows = [
        row(
            "student", 0.4, group=f"e{n}", swept={"student.epochs": n}, stages={"evaluate": f"e{n}"}
        )
        for n in (2, 8)
    ]

    labels = [aggregate.label for aggregate in read_aggregates(results_of(rows))]

    assert labels == ["SPAR epochs = 2", "SPAR epochs = 8"]


def test_aggregates_alike_in_all_that_is_recorded_differ_by_their_group() -> None:
    rows = [baseline(38, group=name, stages={"evaluate": name}) for name in ("first", "second")]

    labels = [aggregate.label for aggregate in read_aggregates(results_of(rows))]

    assert labels == ["single pass, first", "single pass, second"]


def test_failed_seeds_are_kept_beside_those_that_finished() -> None:
    rows = students("all", 45)
    rows[1] = replace(rows[1], miou=None, status="failed")

    (aggregate,) = read_aggregates(results_of(rows))

    assert aggregate.mious == pytest.approx([0.446, 0.454])
    assert aggregate.unfinished == ["failed"]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("stride_px", 12, "s = 12"),
        ("trainable", "last_1_blocks", "last block"),
        ("trainable", "mlp_of_last_2_blocks", "mlp of last 2 blocks"),
        ("average", "logits", "logit average"),
        ("refiner", "none", "no refiner"),
        ("train_short_side_px", (128, 320), "train 128–320 px"),
        ("student.learning_rate", 2e-5, "learning rate = 2e-05"),
        ("images.crop", [0.25, 0.5], "crop = 0.25–0.5"),
        ("measure.latency", True, "latency = yes"),
    ],
)
def test_setting_in_a_name_is_short_and_has_its_symbol_or_unit(
    name: str, value: object, shown: str
) -> None:
    assert setting_text(name, value) == shown


def test_strides_of_one_window_are_a_series_from_coarse_to_fine() -> None:
    wide = {"window_px": 128, "group": "wide", "stages": {"evaluate": "wide"}}
    rows = [teacher(12, 46.7), teacher(32, 45.1), teacher(64, 44.0), teacher(32, 43.0, **wide)]

    series = stride_series(read_aggregates(results_of([baseline(38.3), *rows])))

    strides = [
        [(aggregate.settings["window_px"], aggregate.settings["stride_px"]) for aggregate in one]
        for one in series
    ]
    assert strides == [[(128, 32)], [(64, 64), (64, 32), (64, 12)]]


def test_two_data_sets_of_one_name_are_two_and_their_names_differ() -> None:
    rows = [
        baseline(38, dataset_digest="0123456789", group="two"),
        teacher(12, 45, dataset_digest="abcdef0123", group="four"),
        baseline(30, dataset="other", dataset_digest="fedcba9876", stages={"evaluate": "other"}),
    ]

    aggregates = read_aggregates(with_distinct_datasets(results_of(rows)))

    assert {each.panel.dataset for each in aggregates} == {
        "patchwork 01234567",
        "patchwork abcdef01",
        "other",
    }


def test_training_at_one_size_is_a_number_and_a_range_is_both_ends() -> None:
    rows = [
        *students("all", 45, n_seeds=1, train_short_side_px=(96, 96)),
        *students("all", 46, n_seeds=1, train_short_side_px=(128, 320), group="b", stages={}),
    ]

    labels = [each.label for each in read_aggregates(results_of(rows))]

    assert labels == ["SPAR train 96 px", "SPAR train 128–320 px"]


def test_swept_settings_are_in_the_label_of_the_classifier_that_has_them() -> None:
    rows = [
        row(
            "pretrained", 0.4, group=f"{classifier}{n}", classifier=classifier,
            swept={"evaluate.classifier.epochs": n, "evaluate.logit_scale": 10 * n},
            stages={"evaluate": f"{classifier}{n}"},
        )
        for classifier in ("text", "linear") for n in (2, 3)
    ]  # fmt: skip

    labels = [aggregate.label for aggregate in read_aggregates(results_of(rows))]

    assert labels == [
        "single pass, class names, logit scale = 20",
        "single pass, class names, logit scale = 30",
        "single pass, linear probe, epochs = 2",
        "single pass, linear probe, epochs = 3",
    ]


def test_a_swept_recipe_is_not_that_of_an_imported_student() -> None:
    rates: dict[str, object] = {"student.learning_rate": 2e-5, "images.crop": 0.5}
    rows = [
        *students("all", 45, n_seeds=1, swept={"student.trainable": "all", **rates}),
        replace(imported(46), swept={"student.checkpoint": "spar.ckpt", **rates}),
    ]

    trained, other = read_aggregates(results_of(rows))

    assert trained.settings["student.learning_rate"] == 2e-5
    assert "student.learning_rate" not in other.settings
    assert "images.crop" not in other.settings
