"""The paper's numbers: in our words, and consistent with each other and with our own counts."""

from collections import Counter
from dataclasses import replace

import pytest

from spar_bench import registry
from spar_bench.errors import UnknownName
from spar_bench.published import Published, published, tables
from spar_bench.values import parse_trainable
from spar_bench.windows import n_windows
from tests.small import printed

SIX = {"voc21", "voc20", "cityscapes", "ade20k", "context60", "context59"}
NO_DATASETS = {"mean6", "image_2048x1024"}
REFINERS = {"none", "anyup", "lposs"}
EVERY = [one for table in tables() for one in published(table)]


def value(table: str, **cells: object) -> float:
    """Return the one number of a table whose cells are these."""
    [found] = [
        one
        for one in published(table)
        if all(getattr(one, key) == cell for key, cell in cells.items())
    ]
    return found.value


def test_they_are_those_of_one_table_and_two_figures() -> None:
    assert Counter(one.table for one in EVERY) == {
        "main_table": 126,
        "stride_figure": 36,
        "resolution_figure": 48,
    }


def test_a_number_has_typed_cells_and_none_where_one_does_not_apply() -> None:
    [found] = [
        one
        for one in published("main_table")
        if (one.backbone, one.method, one.refiner, one.dataset)
        == ("siglip2-b16-512", "student", "none", "cityscapes")
    ]

    assert found == Published(
        table="main_table",
        backbone="siglip2-b16-512",
        method="student",
        inference="single_pass",
        stride_px=24,
        refiner="none",
        trainable="last_2_blocks",
        images="sa1b_25k",
        dataset="cityscapes",
        effective_px=None,
        quantity="miou_percent",
        value=38.4,
        reading_tolerance=0.05,
        source="SPAR project page, results.png",
    )


def test_table_that_is_not_known_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        published("main_tabel")

    assert str(caught.value) == (
        "published table: must be a known name, but got 'main_tabel'; did you mean 'main_table'?"
    )


def test_no_number_is_published_twice() -> None:
    places = [replace(one, value=0, reading_tolerance=0, source="") for one in EVERY]

    assert [place for place, count in Counter(places).items() if count > 1] == []


def test_backbones_and_data_sets_are_ours() -> None:
    assert {one.backbone for one in EVERY} <= set(registry.names("backbones"))
    assert {one.dataset for one in EVERY} - NO_DATASETS == SIX
    assert set(registry.names("datasets")) >= SIX
    assert {one.refiner for one in EVERY} == REFINERS


def test_cells_apply_where_they_should() -> None:
    for one in EVERY:
        is_student, slides = one.method == "student", one.inference == "sliding_window"
        assert slides == (one.method == "teacher"), one
        assert (one.stride_px is not None) == (is_student or slides), one
        assert (one.trainable is not None) == (one.images is not None) == is_student, one
        assert (one.effective_px is not None) == (one.table == "resolution_figure"), one
        if one.trainable is not None:
            parse_trainable(one.trainable)


def test_means_are_those_of_the_six_data_sets_within_rounding() -> None:
    rows: dict[Published, dict[str, float]] = {}
    for one in published("main_table"):
        rows.setdefault(replace(one, dataset="", value=0), {})[one.dataset] = one.value

    assert len(rows) == 18
    for row, cells in rows.items():
        assert cells.keys() == SIX | {"mean6"}, row
        mean = sum(cells[name] for name in SIX) / len(SIX)
        assert abs(mean - cells["mean6"]) <= 0.05 + 0.05 + 1e-9, row


def test_windows_are_as_many_as_we_count() -> None:
    counted = [one for one in EVERY if one.quantity == "windows"]

    assert len(counted) == 12
    for one in counted:
        assert one.dataset == "image_2048x1024"
        slides = one.inference == "sliding_window"
        own = n_windows((1024, 2048), 512, one.stride_px) if slides and one.stride_px else 1
        assert one.value == own, one


@pytest.mark.parametrize("method", ["pretrained", "teacher", "student"])
def test_stride_figure_has_the_means_of_the_main_table(method: str) -> None:
    stride_px = {"pretrained": None, "teacher": 24, "student": 24}[method]
    cells = {"backbone": "siglip2-b16-512", "method": method, "stride_px": stride_px}

    means = [
        value(table, **cells, refiner="none", dataset="mean6")
        for table in ("main_table", "stride_figure")
    ]

    assert means[0] == means[1]


def test_student_is_as_much_faster_than_its_teacher_as_the_paper_says() -> None:
    teacher, student = (
        value("stride_figure", method=method, stride_px=24, quantity="seconds")
        for method in ("teacher", "student")
    )

    assert (teacher, student) == (24.7, 0.48)
    assert 51 < teacher / student < 52


def test_time_of_the_stride_figure_goes_by_the_windows() -> None:
    by_stride: dict[int | None, dict[str, float]] = {}
    for one in published("stride_figure"):
        if one.method == "teacher":
            by_stride.setdefault(one.stride_px, {})[one.quantity] = one.value

    assert len(by_stride) == 10
    for cells in by_stride.values():
        assert 0.0164 < cells["seconds"] / cells["windows"] < 0.0169


def test_tolerance_of_reading_is_stated_with_each() -> None:
    for one in EVERY:
        assert 0 <= one.reading_tolerance < 0.031 * one.value, one
        assert (one.reading_tolerance == 0) == (one.quantity == "windows"), one
        assert one.source, one


def test_numbers_are_read_without_anything_heavy() -> None:
    code = (
        "import sys; from spar_bench.published import tables; tables(); "
        "print(*sorted({'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    )

    assert printed(code) == ""
