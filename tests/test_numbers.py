"""Numbers are tied to versions: none moves unless the version that stands for its code does."""

from pathlib import Path

import pytest

from spar_bench import registry
from tests.numbers import Numbers, measure, moved, new, read_table, write_table

MSE = Numbers({"mse": 1}, [1.5, 0.25])


@pytest.fixture(scope="module")
def measured() -> dict[str, Numbers]:
    """The numbers of this code."""
    return measure()


def test_no_number_has_moved_while_its_versions_stayed(measured: dict[str, Numbers]) -> None:
    assert moved(read_table(), measured) == []


def test_table_has_the_numbers_of_the_present_versions(measured: dict[str, Numbers]) -> None:
    assert new(read_table(), measured) == []


def test_table_has_each_kind_of_stage_but_timings_each_loss_and_each_refiner(
    measured: dict[str, Numbers],
) -> None:
    versions = {key for numbers in measured.values() for key in numbers.versions}

    assert {"images", "targets", "student", "text", "evaluate", "cost"} <= versions
    assert {"mse", "l1", "cosine", "smooth_l1", "normalized_mse"} <= versions
    assert set(registry.modules("refiners")) - {"none"} <= versions
    assert {"loss mse", "refiner none", "dataset patchwork", "source patchwork"} <= versions
    assert {"backbone patchwork", "backbone openclip", "text_tower openclip"} <= versions


def test_number_that_moves_under_its_version_is_told_with_the_way_out() -> None:
    [line] = moved({"loss mse": MSE}, {"loss mse": Numbers({"mse": 1}, [1.5, 0.26])})

    assert line == (
        "loss mse: its numbers must stay while its versions do (mse 1), but 0.25 became 0.26; "
        "raise the version whose code moved them, then run `python -m tests.numbers`"
    )


def test_number_that_differs_as_between_machines_has_not_moved() -> None:
    assert moved({"loss mse": MSE}, {"loss mse": Numbers({"mse": 1}, [1.5001, 0.25])}) == []


def test_number_that_moves_with_its_version_asks_for_a_new_entry(tmp_path: Path) -> None:
    table, raised = tmp_path / "numbers.json", {"loss mse": Numbers({"mse": 2}, [3.0, 0.5])}
    write_table({"loss mse": MSE}, table)

    asked = new(read_table(table), raised)
    write_table(raised, table)

    assert moved({"loss mse": MSE}, raised) == []
    assert asked == [
        "loss mse: numbers.json must have mse 2, but has mse 1; run `python -m tests.numbers`"
    ]
    assert new(read_table(table), raised) == moved(read_table(table), raised) == []


def test_numbers_of_present_versions_are_not_rewritten(tmp_path: Path) -> None:
    table = tmp_path / "numbers.json"
    write_table({"loss mse": MSE}, table)

    write_table({"loss mse": Numbers({"mse": 1}, [1.5001, 0.25])}, table)

    assert read_table(table) == {"loss mse": MSE}
