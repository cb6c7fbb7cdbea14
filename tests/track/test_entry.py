"""What MLflow shows of a run."""

import pytest

from spar_bench.results import Training
from spar_bench.track.entry import Entry, aggregates, as_text, metric_name
from tests.track.conftest import make_record, make_row, mirror, query


def test_first_data_set_and_resolution_summarise_a_run() -> None:
    rows = [
        make_row(miou=0.3),
        make_row(miou=0.4, eval_short_side_px=512),
        make_row(miou=0.5, dataset="street photos"),
    ]

    entry = Entry.of(make_record(rows=rows))

    assert {name: value for name, value in entry.metrics.items() if "miou" in name} == {
        "miou": 0.3,
        "miou/patchwork.256": 0.3,
        "miou/patchwork.512": 0.4,
        "miou/street photos.256": 0.5,
    }


def test_what_a_student_took_is_a_metric_where_it_is_known() -> None:
    took = Training(train_images=200, epochs=4, trained_params_m=0.4, train_gflops=12.5)
    taught = make_record(method="student", rows=[make_row(training=took)])

    metrics = Entry.of(taught).metrics

    assert (metrics["train_gflops"], metrics["trained_params_m"]) == (12.5, 0.4)
    assert {"teach_gflops", "train_seconds"}.isdisjoint(metrics)
    assert "train_gflops" not in Entry.of(make_record()).metrics


def test_run_that_no_seed_can_move_has_no_seed() -> None:
    seeded, unseeded = Entry.of(make_record(seed=0)), Entry.of(make_record(seed=None))

    assert (seeded.tags["spar.seed"], seeded.params["seed"]) == ("0", "0")
    assert {"spar.seed", "seed"}.isdisjoint({*unseeded.tags, *unseeded.params})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (28, "28"),
        (1e-3, "0.001"),
        ("mse", "mse"),
        (None, "null"),
        (True, "true"),
        ([128, 320], "[128, 320]"),
        ([{"name": "patchwork"}], '[{"name": "patchwork"}]'),
    ],
)
def test_settings_are_text_as_a_spec_would_have_them(value: object, text: str) -> None:
    assert as_text(value) == text


NAMES = ["x/y", "x_y", "x:y", "x=y", "x y", "x.y", "x", "..", "ü", "😀", "d" * 300, "d" * 299]


def test_metrics_of_data_sets_with_odd_names_stay_apart_and_mlflow_takes_them(uri: str) -> None:
    disguised = f"x_y.{metric_name('x/y').rpartition('.')[2]}"
    names = [*NAMES, disguised]

    mirror(uri, make_record(rows=[make_row(dataset=name) for name in names]))

    found = query(uri, "SELECT key FROM latest_metrics WHERE key LIKE 'miou/%'")
    assert len(found) == len(names)


def test_numbers_of_probes_are_metrics(uri: str) -> None:
    row = make_row(probes={"linear": {"accuracy": 0.5, "classes": ["a"], "n": 3}})

    mirror(uri, make_record(rows=[row]))

    found = query(uri, "SELECT key, value FROM latest_metrics WHERE key LIKE 'linear%'")
    assert dict(found) == {"linear.accuracy/patchwork.256": 0.5, "linear.n/patchwork.256": 3}


def test_means_of_groups_with_odd_names_stay_apart() -> None:
    rows = [
        *(make_row(group=name) for name in NAMES),
        make_row(group="g", dataset="a.teacher.b"),
        make_row(group="g.teacher.a", dataset="b"),
    ]

    means = aggregates(rows)

    assert len(means) == len(rows)
    assert "miou_mean/x:y.teacher.patchwork.256" in means  # of x=y
    assert max(map(len, means)) <= 250
