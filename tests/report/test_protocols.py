"""Rows of one table have one protocol, or the table says which each has."""

import json
from pathlib import Path
from typing import Any

import pytest

from spar_bench.errors import MixedProtocols
from spar_bench.report import write
from spar_bench.report.protocols import protocol_lines, require_unmixed, skipped_lines
from spar_bench.results import Results, Row
from spar_bench.stage import digest
from tests.report.synthetic import InMemory, baseline, results_of, teacher

USUAL: dict[str, Any] = {
    "classes": [["sky"], ["road", "street"]],
    "templates": "openclip_80",
    "logit_scale": 40.0,
    "background_threshold": 0.0,
    "area_threshold": 0.0,
    "by_read_out": {},
    "resize": "bilinear",
    "long_side_px": None,
    "precision": "float32",
    "unreadable": "error",
}


def named(**changes: Any) -> tuple[str, dict[str, Any]]:
    said = USUAL | changes
    return digest(said)[:8], said


def results(*rows: tuple[Row, dict[str, Any]]) -> Results:
    """Return results whose rows have the protocols paired with them."""
    said = [protocol for _, protocol in rows]
    return results_of([row for row, _ in rows], protocols={digest(one)[:8]: one for one in said})


def two(key: str, values: tuple[Any, Any], **rows: Any) -> Results:
    """Return a baseline and a teacher whose protocols differ in one key; `rows` to their fields."""
    (a, first), (b, second) = (named(**{key: value}) for value in values)
    left = {name: value[0] for name, value in rows.items()}
    right = {name: value[1] for name, value in rows.items()}
    return results(
        (baseline(38, protocol=a, **left), first), (teacher(12, 45, protocol=b, **right), second)
    )


@pytest.mark.parametrize(
    ("key", "values", "told"),
    [
        ("logit_scale", (40.0, 65.0), r"logit scale \(40 and 65\)"),
        ("area_threshold", (0.0, 0.1), r"area threshold \(0 and 0.1\)"),
        ("classes", ([["sky"], ["road"]], [["air"], ["road"]]), "classes"),
        ("by_read_out", ({}, {"maskclip": {"area_threshold": 0.1}}), "by read out"),
        ("unreadable", ("error", "skip"), r"unreadable \(error and skip\)"),
        ("long_side_px", (None, 2048), r"long side px \(none and 2048\)"),
    ],
)
def test_rows_of_two_protocols_are_refused_in_one_line(
    key: str, values: tuple[Any, Any], told: str, tmp_path: Path
) -> None:
    mixed = two(key, values)
    a, b = mixed.protocols

    with pytest.raises(
        MixedProtocols,
        match=f"^stride: all rows of patchwork must have one protocol, but have {a} and {b}, "
        f"which differ in {told}; sweep what differs, or add --mix-protocols",
    ) as caught:
        write(mixed, InMemory(), tmp_path)

    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_told_to_mix_the_table_has_a_column_of_protocols(tmp_path: Path) -> None:
    mixed = two("logit_scale", (40.0, 65.0))
    a, b = mixed.protocols

    write(mixed, InMemory(), tmp_path, mix_protocols=True)

    table = (tmp_path / "table.md").read_text()
    header, _, *lines = [line for line in table.splitlines() if line.startswith("|")]
    column = header.split("|").index(" Protocol ")
    assert [line.split("|")[column].strip() for line in lines] == [a, b]
    assert json.loads((tmp_path / "protocols.json").read_text()) == mixed.protocols


@pytest.mark.parametrize(
    ("key", "values", "shown"),
    [
        ("logit_scale", (40.0, 65.0), {"swept": [{"evaluate.logit_scale": v} for v in (40, 65)]}),
        ("precision", ("float32", "bfloat16"), {"dtype": ["float32", "bfloat16"]}),
        ("long_side_px", (None, 2048), {"eval_short_side_px": [256, 672]}),
    ],
)
def test_what_a_column_shows_is_no_mixture(
    key: str, values: tuple[Any, Any], shown: dict[str, Any]
) -> None:
    require_unmixed(two(key, values, **shown))


def test_what_another_column_shows_is_a_mixture_still() -> None:
    # Two keys differ, of which the table would show one.
    (a, first), (b, second) = named(), named(logit_scale=65.0, area_threshold=0.1)
    swept = [{"evaluate.logit_scale": v} for v in (40.0, 65.0)]
    rows = results(
        (baseline(38, protocol=a, swept=swept[0]), first),
        (teacher(12, 45, protocol=b, swept=swept[1]), second),
    )

    with pytest.raises(MixedProtocols, match=r"differ in area threshold \(0 and 0.1\); sweep"):
        require_unmixed(rows)


def test_data_sets_may_have_protocols_of_their_own_and_still_share_lines(tmp_path: Path) -> None:
    (a, first), (b, second) = named(), named(logit_scale=65.0)
    rows = [
        (teacher(12, 45, dataset=dataset, protocol=name, stages={"evaluate": dataset}), said)
        for dataset, name, said in (("ade20k", a, first), ("voc21", b, second))
    ]

    write(results(*rows), InMemory(), tmp_path)

    table = (tmp_path / "table.md").read_text()
    accuracy = table[: table.index("**", 2)] + table.split("\n\n")[1]
    assert accuracy.count("sliding window") == 1
    assert f"Protocol {a} (ade20k at 256 px: 48 images): 2 classes by 3 names, " in table
    assert f"Protocol {b} (voc21 at 256 px: 48 images): " in table


def test_protocol_is_said_part_by_part() -> None:
    name, said = named(
        templates=["a {}.", "the {}.", "{}"],
        long_side_px=2048,
        by_read_out={"maskclip": {"background_threshold": 0.1, "area_threshold": 0.1}},
    )

    [line] = protocol_lines(results((baseline(38, protocol=name), said)))

    assert line == (
        f"Protocol {name} (patchwork at 256 px: 48 images): 2 classes by 3 names, "
        'templates "a {}." / "the {}." and 1 more, logit scale 40, background threshold 0, '
        "area threshold 0, for maskclip background threshold 0.1 and area threshold 0.1, "
        "resize bilinear, long side 2048, precision float32, unreadable error."
    )


def test_number_of_images_is_said_beside_the_protocol_where_it_is_known(tmp_path: Path) -> None:
    rows = [
        baseline(38, dataset="one", n_images=1),
        baseline(38, dataset="two", n_images=12, eval_short_side_px=64),
        baseline(38, dataset="two", n_images=12, eval_short_side_px=96),
        baseline(38, dataset="two", n_images=24, group="b"),
        baseline(38, dataset="none", n_images=None),
    ]

    write(results_of(rows), InMemory(), tmp_path)

    said = "(one at 256 px: 1 image; two at 64, 96, 256 px: 12 or 24 images; none at 256 px): "
    assert said in (tmp_path / "README.md").read_text()
    assert said in (tmp_path / "table.tex").read_text()


def test_a_part_of_a_data_set_is_said_to_be_evenly_spaced_beside_the_protocol() -> None:
    part, whole, skipping = (
        protocol_lines(results((baseline(38, n_listed=120, protocol=name, **counts), said)))
        for counts in ({"n_images": 12}, {"n_images": 120}, {"n_images": 118, "n_skipped": 2})
        for name, said in [named()]
    )

    assert "(patchwork at 256 px: 12 images, evenly spaced among 120): " in part[0]
    assert "(patchwork at 256 px: 120 images): " in whole[0]
    assert "(patchwork at 256 px: 118 images): " in skipping[0]


def test_images_left_out_are_counted_under_the_table(tmp_path: Path) -> None:
    rows = [baseline(38, n_images=46, n_skipped=2), teacher(12, 45, n_images=46, n_skipped=2)]

    write(results_of(rows), InMemory(), tmp_path)

    told = (
        "Left out of patchwork, because they cannot be read: 2 of 48 images; the remarks say why."
    )
    assert skipped_lines(results_of(rows)) == [told]
    assert told in (tmp_path / "table.md").read_text()
    assert told in (tmp_path / "table.tex").read_text()
    assert skipped_lines(results_of([baseline(38, n_skipped=0)])) == []
