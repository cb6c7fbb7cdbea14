"""How numbers and tables are printed."""

import pytest

from spar_bench.cli.printing import span, table


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"),
        (99.4, "99 s"),
        (150, "2 min"),
        (5999, "1 h 40 min"),
        (7260, "2 h 01 min"),
        (2.25 * 86400, "2.2 days"),
    ],
)
def test_durations_are_shown_in_the_largest_fitting_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_last_column_is_wrapped_only_where_there_is_room() -> None:
    sentence = "word " * 20
    wide = [["x" * 70, sentence.strip()]]

    wrapped = table(["name", "what"], [["a", sentence.strip()]]).splitlines()

    assert (len(wrapped), max(map(len, wrapped)) <= 80) == (3, True)
    assert len(table(["name", "what"], wide).splitlines()) == 2
