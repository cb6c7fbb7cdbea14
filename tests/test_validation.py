"""What is shown of a value that is refused, and which keys there are in place of a wrong one."""

from spar_bench.datasets._facts import Facts
from spar_bench.spec.schema import Spec
from spar_bench.validation import dotted, is_text, known_keys, show


def test_known_keys_are_those_of_the_part_that_steps_lead_to() -> None:
    assert known_keys(Spec, ("teacher",)) == [
        "window_px", "stride_px", "upsample", "precision", "normalise", "keep",
    ]  # fmt: skip
    assert known_keys(Spec, ("evaluate", "datasets", 3))[:2] == ["name", "path"]
    assert known_keys(Facts, ("by_read_out", "maskclip")) == [
        "background_threshold",
        "area_threshold",
    ]


def test_known_keys_of_a_union_are_those_of_all_its_members() -> None:
    steps = ("sweep", 0, "search", "space", "student.epochs")

    assert known_keys(Spec, steps) == ["choices", "low", "high", "log", "integer", "step"]


def test_long_value_is_shown_short_and_in_one_line() -> None:
    assert show("a\nb") == r"'a\nb'"
    assert show("x" * 10_000) == "'" + "x" * 56 + "..."
    assert len(show(list(range(10_000)))) == 60
    assert [show(None), show(True), show({"a": 1})] == ["nothing", "true", "a mapping"]


def test_steps_are_dotted_in_one_line() -> None:
    assert dotted(("evaluate", "datasets", 0, "name")) == "evaluate.datasets[0].name"
    assert dotted(("a\nb",)) == r"'a\nb'"


def test_text_is_what_a_file_can_hold() -> None:
    assert is_text("é\n")
    assert not is_text("a\0")
    assert not is_text("a\udcff")
