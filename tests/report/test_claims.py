"""Claims: what each form measures on rows, its interval over images, and its verdict."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from spar_bench.accuracy import difference_of, resample
from spar_bench.claims import Claim, Form, Selected
from spar_bench.report.claims import Checked, check_claims
from spar_bench.report.measuring import Resampler
from spar_bench.results import Row
from tests.report.synthetic import (
    InMemory,
    baseline,
    cost,
    evaluations_of,
    results_of,
    students,
    teacher,
)

SINGLE = Selected("method: pretrained", ["a"], "pretrained")
S12, S16 = (
    Selected(f"teacher.stride_px: {stride}", [f"stride_px={stride}"], "teacher")
    for stride in (12, 16)
)
SPAR = Selected("method: student", ["trainable=all"], "student")
ROWS = [
    baseline(38.0, cost=cost(2)),
    teacher(16, 44.0, cost=cost(30)),
    teacher(12, 46.0, cost=cost(40)),
    *students("all", 42.0, cost=cost(2)),
]
COUNTS = evaluations_of(results_of(ROWS)).all_counts


def claim(
    form: Form, *sides: list[Selected], expected: float = 0.0, quantity: str = "miou"
) -> Claim:
    """Return a claim of this form about these sides."""
    return Claim("It is so.", "", quantity, form, list(sides), expected, line=7)


def checked(made: Claim, rows: list[Row] = ROWS, **changes: Any) -> Checked:
    """Return what is measured of a claim on rows with counts."""
    results = results_of(rows, claims=[asdict(made)])
    [found] = check_claims(results, Resampler(InMemory(changes.get("counts", COUNTS))))
    return found


@pytest.mark.parametrize(
    ("made", "value"),
    [
        (claim("difference", [SPAR], [SINGLE]), 0.04),
        (claim("difference", [S12, SINGLE], [S16, SPAR]), -0.02),
        (claim("ratio", [S12], [SPAR], quantity="gflops"), 20.0),
        (claim("ratio", [S12], [SPAR]), 46 / 42),
        (claim("rising", [SINGLE], [SPAR], [S16], [S12]), 0.02),
        (claim("rising", [SINGLE], [S16], [SPAR]), -0.02),
        (claim("share", [SPAR], [SINGLE], [S12]), 0.5),
    ],
)
def test_each_form_measures_what_a_hand_would(made: Claim, value: float) -> None:
    assert checked(made).value == pytest.approx(value)


def test_a_difference_has_the_interval_of_the_paired_bootstrap() -> None:
    found = checked(claim("difference", [SPAR], [SINGLE]))

    students = [resample(COUNTS[f"student_all_{n}"]) for n in range(3)]
    paired = difference_of(students, [resample(COUNTS["pretrained"])])
    assert found.interval == pytest.approx((paired.low, paired.high), abs=1e-12)
    assert (found.n_images, found.n_seeds) == (48, 3)


def test_a_share_has_the_interval_of_the_share_in_each_resample() -> None:
    rows = [baseline(20.0), teacher(16, 60.0), teacher(12, 80.0)]
    counts = evaluations_of(results_of(rows)).all_counts

    found = checked(claim("share", [S16], [SINGLE], [S12]), rows, counts=counts)

    of, start, end = (
        resample(counts[key]).of_resamples for key in ("teacher16", "pretrained", "teacher12")
    )
    assert (end > start).all()
    expected = np.quantile((of - start) / (end - start), [0.025, 0.975])
    assert found.interval == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (claim("share", [SPAR], [S12], [SINGLE]), "there is no gain to share"),
        (claim("share", [SPAR], [S12], [S12]), "there is no gain to share"),
        (claim("ratio", [SPAR], [SINGLE], quantity="gflops"), "it divides by nothing"),
    ],
)
def test_what_divides_by_nothing_or_by_a_loss_is_not_comparable(made: Claim, reason: str) -> None:
    free = [replace(ROWS[0], cost=replace(ROWS[0].cost, gflops=0.0)), *ROWS[1:]]

    found = checked(made, free)

    assert (found.verdict.word, found.verdict.reason) == ("not_comparable", reason)
    assert (found.value, found.interval) == (None, None)


def test_a_share_of_a_gain_that_some_resamples_do_not_have_has_no_interval() -> None:
    counts = {**COUNTS, "teacher12": COUNTS["teacher16"]}
    resampled = [resample(counts[key]).of_resamples for key in ("teacher16", "teacher12")]

    found = checked(claim("share", [SPAR], [S16], [S12]), counts=counts)

    assert (resampled[1] <= resampled[0]).any()
    assert found.value == pytest.approx(-1.0)
    assert found.interval is None


def test_what_images_do_not_change_has_no_interval() -> None:
    assert checked(claim("ratio", [S12], [SPAR], quantity="gflops")).interval is None


def test_a_mean_over_data_sets_weighs_each_alike() -> None:
    others = [
        replace(row, dataset="streets", dataset_digest="s", miou=(row.miou or 0) + extra,
                stages={"evaluate": f"streets{n}"})
        for n, (row, extra) in enumerate(zip(ROWS[:2], (0.0, 0.10), strict=True))
    ]  # fmt: skip

    found = checked(claim("difference", [S16], [SINGLE]), [*ROWS[:2], *others])

    assert found.value == pytest.approx((0.06 + 0.16) / 2)
    assert found.interval is None  # counts of one data set are missing


@pytest.mark.parametrize(
    ("expected", "word"), [(0.03, "reproduced"), (0.04, "reproduced"), (0.5, "off")]
)
def test_a_claim_holds_if_as_much_is_measured_as_expected(expected: float, word: str) -> None:
    assert checked(claim("difference", [SPAR], [SINGLE], expected=expected)).verdict.word == word


@pytest.mark.parametrize(("expected", "reason"), [(0.03, ""), (0.5, "tried: more epochs")])
def test_what_was_tried_stands_beside_a_claim_that_does_not_hold(
    expected: float, reason: str
) -> None:
    made = replace(claim("difference", [SPAR], [SINGLE], expected=expected), tried="more epochs")

    assert checked(made).verdict.reason == reason


def test_a_claim_that_fails_by_less_than_the_interval_is_within_noise() -> None:
    interval = checked(claim("difference", [SPAR], [SINGLE])).interval
    assert interval is not None
    between = (max(0.04, interval[0]) + interval[1]) / 2

    found = checked(claim("difference", [SPAR], [SINGLE], expected=between))

    assert 0.04 < between < interval[1]
    assert found.verdict.word == "within_noise"
    without = checked(claim("difference", [SPAR], [SINGLE], expected=between), counts={})
    assert without.verdict.word == "off"


def test_rows_that_are_not_there_or_not_finished_are_not_run() -> None:
    made = claim("difference", [SPAR], [SINGLE])
    failed = [
        replace(row, miou=None, status="failed", reason="out of memory")
        if row.method == "student" and row.seed == 1
        else row
        for row in ROWS
    ]

    missing, unfinished = checked(made, ROWS[:3]), checked(made, failed)

    assert (missing.verdict.word, missing.verdict.reason) == ("not_run", f"no row of {SPAR.text}")
    assert unfinished.verdict.word == "not_run"
    assert unfinished.verdict.reason == "trainable=all-1, student: out of memory"
    assert missing.value is None


def test_what_was_not_measured_of_a_finished_row_is_not_run() -> None:
    untimed = [replace(row, cost=replace(row.cost, latency_p50_ms=None)) for row in ROWS]

    found = checked(claim("ratio", [S12], [SPAR], quantity="latency_p50_ms"), untimed)

    assert found.verdict.word == "not_run"
    assert found.verdict.reason.endswith("latency_p50_ms was not measured")


def test_random_weights_say_something_of_costs_alone() -> None:
    rows = [replace(row, random_weights=True) for row in ROWS]

    accuracy = checked(claim("difference", [SPAR], [SINGLE]), rows)
    operations = checked(claim("ratio", [S12], [SPAR], expected=20, quantity="gflops"), rows)

    assert (accuracy.verdict.word, accuracy.verdict.reason) == (
        "not_comparable",
        "its weights are random",
    )
    assert operations.verdict.word == "reproduced"


def test_a_selection_of_several_settings_is_not_comparable() -> None:
    both = Selected("method: teacher", ["stride_px=12", "stride_px=16"], "teacher")

    found = checked(claim("difference", [both], [SINGLE]))

    assert found.verdict.word == "not_comparable"
    assert found.verdict.reason == "method: teacher selects 2 settings; say which"


def test_rows_of_different_data_sets_are_not_compared() -> None:
    rows = [replace(ROWS[0], dataset="streets"), *ROWS[1:]]

    found = checked(claim("difference", [SPAR], [SINGLE]), rows)

    assert found.verdict.word == "not_comparable"
    assert found.verdict.reason == "it compares rows of different data sets"


@pytest.mark.parametrize(
    ("note", "device", "verdict"),
    [
        ("", "cpu", ("reproduced", "")),
        ("load", "cpu", ("reproduced", "latency as on a loaded machine")),
        ("", "gpu", ("not_comparable", "it compares different devices or precisions")),
    ],
)
def test_times_are_of_one_machine_and_say_if_it_was_loaded(
    note: str, device: str, verdict: tuple[str, str]
) -> None:
    slow = replace(ROWS[2], cost=replace(ROWS[2].cost, latency_note=note, device=device))

    found = checked(
        claim("ratio", [S12], [SINGLE], expected=2, quantity="latency_p50_ms"), [ROWS[0], slow]
    )

    assert (found.verdict.word, found.verdict.reason) == verdict
