"""How numbers and tables are printed."""

import time

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


def test_table_of_many_rows_takes_a_time_in_proportion() -> None:
    def seconds(n: int) -> float:
        rows, begun = [[str(index), "word " * 4] for index in range(n)], time.process_time()
        table(["name", "what"], rows)
        return time.process_time() - begun

    fastest = [min(seconds(n) for _ in range(3)) for n in (300, 3_000)]

    assert fastest[1] < 30 * fastest[0]  # 100 if every row looked at all others


def test_last_column_is_wrapped_only_where_there_is_room() -> None:
    sentence = "word " * 20
    wide = [["x" * 70, sentence.strip()]]

    wrapped = table(["name", "what"], [["a", sentence.strip()]]).splitlines()

    assert (len(wrapped), max(map(len, wrapped)) <= 80) == (3, True)
    assert len(table(["name", "what"], wide).splitlines()) == 2
