"""What MLflow shows of a trial."""

import pytest

from spar_bench.track.entry import Entry, as_text
from tests.track.conftest import make_row, make_trial


def test_headline_is_the_students_on_the_first_data_set_and_resolution() -> None:
    rows = [
        make_row(method="pretrained", miou=0.1),
        make_row(method="teacher", miou=0.2),
        make_row(method="student", miou=0.3),
        make_row(method="student", miou=0.4, eval_short_side_px=512),
        make_row(method="student", miou=0.5, dataset="street photos/2"),
    ]

    entry = Entry.of(make_trial(rows=rows))

    assert entry.tags["spar.headline"] == "student"
    assert {name: value for name, value in entry.metrics.items() if "miou" in name} == {
        "miou": 0.3,
        "miou/pretrained.patchwork.256": 0.1,
        "miou/teacher.patchwork.256": 0.2,
        "miou/student.patchwork.256": 0.3,
        "miou/student.patchwork.512": 0.4,
        "miou/student.street photos_2.256": 0.5,
    }


def test_trial_that_no_seed_can_move_has_no_seed() -> None:
    assert Entry.of(make_trial(seed=0)).tags["spar.seed"] == "0"
    assert "spar.seed" not in Entry.of(make_trial(seed=None)).tags


def test_blocked_student_has_no_headline_number_rather_than_its_teachers() -> None:
    rows = [make_row(miou=0.2), make_row(method="student", miou=None, status="blocked")]

    entry = Entry.of(make_trial(rows=rows))

    assert "miou" not in entry.metrics
    assert entry.metrics["miou/teacher.patchwork.256"] == 0.2


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


def test_very_long_names_stay_apart_and_within_mlflows_limit() -> None:
    rows = [make_row(dataset="d" * 300 + end, group="g" * 300) for end in "ab"]

    names = [name for name in Entry.of(make_trial(rows=rows)).metrics if name.startswith("miou/")]

    assert len(names) == 2
    assert max(map(len, names)) <= 250
