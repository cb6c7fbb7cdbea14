"""Kinds of value at the edges of what they accept."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from spar_bench.validation import mistakes
from spar_bench.values import (
    Classes,
    FolderPath,
    Positive,
    Resolution,
    Seed,
    Side,
    TrainedPart,
    parse_trainable,
)


def refusal(kind: Any, value: Any) -> str:
    """Return what is wrong with a value, or nothing."""
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        return next(mistakes(error)).text
    return ""


@pytest.mark.parametrize(
    ("kind", "highest", "shown"),
    [
        (Side, 65_536, "65,536"),
        (Positive, 10**9, "1,000,000,000"),
        (Seed, 2**32 - 1, "4,294,967,295"),
    ],
)
def test_number_is_accepted_up_to_its_bound(kind: Any, highest: int, shown: str) -> None:
    assert refusal(kind, highest) == ""
    assert refusal(kind, highest + 1) == (
        f"must be at most {shown}, but got {highest + 1}; lower it"
    )


def test_resolution_is_a_bounded_side_or_own() -> None:
    assert [refusal(Resolution, value) for value in ("own", 65_536, "256")] == ["", "", ""]
    assert all(refusal(Resolution, value) for value in (65_537, "9" * 5000, 0, True, "²", 2.5))


def test_path_is_bounded_in_bytes_as_file_systems_do() -> None:
    assert refusal(FolderPath, "é" * 127 + "a") == ""  # 255 bytes
    assert "255 a name" in refusal(FolderPath, "é" * 128)
    assert "4,095 bytes" in refusal(FolderPath, "/a" * 2048)
    assert "without NUL" in refusal(FolderPath, "a\0b")
    assert "must be UTF-8" in refusal(FolderPath, "a\udcff")


def test_class_names_are_given_once_and_filled() -> None:
    assert refusal(Classes, [["road", "street"], ["sky"]]) == ""
    assert refusal(Classes, [["road", "road"]]).endswith("but got 'road' again; rename one")
    assert refusal(Classes, [["road"], [" "]]).startswith("must hold names, but got ' '")


def test_trainable_part_counts_blocks() -> None:
    assert parse_trainable("mlp_of_last_12_blocks") == TrainedPart("mlp", 12)
    assert parse_trainable("all") == TrainedPart("all", 0)
    with pytest.raises(ValueError, match="must match"):
        parse_trainable("last_0_blocks")
