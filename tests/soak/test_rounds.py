"""What a round of the soak finds wrong with what its processes have said."""

import pytest

from tests.soak.rounds import made_too_often

ONCE = ["7 started student ab12: 2 in one go", "7 made student ab12: 3.2 s"]


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (ONCE, []),
        ([*ONCE, "8 made cost ab12"], []),
        ([ONCE[0], "FAULT kill -9 of a worker", *ONCE], []),
        (["FAULT kill -9 of a worker", ONCE[0], *ONCE], []),
        ([ONCE[0], "ENDED with code 1", *ONCE], []),
        ([ONCE[0], *ONCE], ["student ab12: was begun 2 times within 0 faults"]),
        (
            ["FAULT disk full", ONCE[0], ONCE[0], *ONCE],
            ["student ab12: was begun 3 times within 1 faults"],
        ),
        ([*ONCE, ONCE[1]], ["student ab12: was finished 2 times"]),
    ],
)
def test_stage_is_begun_once_for_each_fault_and_finished_once(
    said: list[str], wrong: list[str]
) -> None:
    assert made_too_often(said) == wrong
