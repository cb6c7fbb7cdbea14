"""Points that a search draws: what they are made of, and how they are named."""

import pytest

from spar_bench.errors import SpecError
from spar_bench.spec import resolve_point
from tests.spec.conftest import Read

pytestmark = pytest.mark.usefixtures("folder")

SEARCH = """
teacher: {window_px: 64}
sweep:
  - set: {student.epochs: 3}
    search:
      space:
        teacher.stride_px: {low: 4, high: 96, integer: true}
        student.learning_rate: {low: 1e-4, high: 1e-2, log: true}
      enqueue: [{teacher.stride_px: 12, student.learning_rate: 1e-3}]
"""


def test_a_search_has_no_points_until_it_draws_them(read: Read) -> None:
    loaded = read(SEARCH)

    assert loaded.points == []
    assert loaded.search is not None
    assert loaded.search.enqueue == [{"teacher.stride_px": 12, "student.learning_rate": 1e-3}]


def test_a_drawn_point_has_the_values_the_set_ones_and_the_base(read: Read) -> None:
    point = resolve_point(
        read(SEARCH), {"teacher.stride_px": 28, "student.learning_rate": 0.00123456789}
    )

    assert point.swept == {"teacher.stride_px": 28, "student.learning_rate": 0.00123456789}
    assert point.settings.student.epochs == 3
    assert point.settings.teacher.window_px == 64
    assert point.group.startswith("stride_px=28,learning_rate=0.001235~")


def test_a_drawn_point_that_cannot_be_is_told_at_the_key_of_its_space(read: Read) -> None:
    loaded = read(SEARCH)

    with pytest.raises(SpecError) as caught:
        resolve_point(loaded, {"teacher.stride_px": 65, "student.learning_rate": 1e-3})

    assert str(caught.value) == (
        "spec.yaml:7:9: teacher.stride_px: must not exceed window_px (64), but got 65: pixels "
        "between windows would have no teacher feature; lower it, or raise window_px"
    )


def test_draws_that_are_written_alike_have_names_of_their_own(read: Read) -> None:
    loaded = read(SEARCH)
    draws = [0.00123456781, 0.00123456782, 0.001]

    names = [
        resolve_point(loaded, {"teacher.stride_px": 28, "student.learning_rate": rate}).group
        for rate in draws
    ]

    assert len(set(names)) == 3
    assert {name.partition("~")[0] for name in names[:2]} == {"stride_px=28,learning_rate=0.001235"}
    assert names[2] == "stride_px=28,learning_rate=0.001"


def test_numbers_and_switches_from_the_environment_are_read_as_the_schema_reads_them(
    read: Read,
) -> None:
    text = SEARCH.replace("low: 4", 'low: "${LOW:-4}"').replace("integer: true", 'integer: "true"')

    loaded = read(text)
    with pytest.raises(SpecError, match=r"must be in the search space, but got 2; widen space"):
        read(text.replace("stride_px: 12", "stride_px: 2"))
    with pytest.raises(SpecError, match=r"must be drawn as whole numbers"):
        read(text.replace('integer: "true"', 'integer: "false"'))
    with pytest.raises(SpecError, match=r"prune: must be off where no student is trained"):
        read(
            'evaluate: {methods: [teacher]}\nsweep:\n  - search:\n      prune: "${P:-true}"\n'
            "      space: {teacher.stride_px: {choices: [8, 16]}}\n"
        )

    assert loaded.search is not None
