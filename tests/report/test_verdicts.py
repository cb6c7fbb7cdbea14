"""Verdicts: the word for each way that a number may compare with what is expected of it."""

import pytest

from spar_bench.report.verdicts import of_claim, of_published


@pytest.mark.parametrize(
    ("value", "high", "word"),
    [
        (0.11, 0.13, "reproduced"),
        (0.10, None, "reproduced"),
        (0.08, 0.10, "within_noise"),
        (0.08, 0.09, "off"),
        (0.08, None, "off"),
        (-0.02, -0.01, "off"),
    ],
)
def test_a_claim_holds_from_what_is_expected_on_and_noise_may_reach_it(
    value: float, high: float | None, word: str
) -> None:
    assert of_claim(value, 0.10, high).word == word


def test_a_claim_of_exactly_what_is_measured_holds_in_spite_of_rounding() -> None:
    measured = 0.436 - 0.331

    assert measured < 0.105
    assert of_claim(measured, 0.105, None).word == "reproduced"


@pytest.mark.parametrize(
    ("value", "interval", "word"),
    [
        (43.6, None, "reproduced"),
        (43.7, None, "reproduced"),
        (43.45, None, "reproduced"),
        (43.8, (43.5, 44.1), "within_noise"),
        (43.8, (43.6, 44.0), "within_noise"),
        (43.8, (43.7, 43.9), "off"),
        (43.8, None, "off"),
        (43.3, (43.2, 43.5), "off"),
    ],
)
def test_a_published_number_is_met_within_how_it_was_read_or_within_the_interval(
    value: float, interval: tuple[float, float] | None, word: str
) -> None:
    assert of_published(value, 43.6, 0.15, interval).word == word
