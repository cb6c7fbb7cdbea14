"""Each row names the stages, weights and lines of the spec that its numbers come from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spar_bench.report.origins import origins_of, spec_lines
from spar_bench.results import COLUMNS, MADE_BY
from spar_bench.spec.document import parse_document
from spar_bench.track import RunLink
from tests.report.synthetic import baseline, results_of, teacher

SPEC = """\
backbone: patchwork
teacher: {window_px: 64,
  stride_px: 12}
student: {trainable: all}
sweep:
  - grid: {teacher.stride_px: [64, 32]}
    set: {student.loss: mse}
  - cases:
      - {teacher.stride_px: 16, images.short_side_px: [128, 320]}
  - search: {student.learning_rate: {low: 1.0e-5, high: 1.0e-3}}
"""


@pytest.mark.parametrize(
    ("swept", "lines"),
    [
        ({"teacher.stride_px": 32}, [6]),
        ({"teacher.stride_px": 16}, [9]),
        ({"teacher.stride_px": 12}, [3]),
        ({"teacher.stride_px": 32, "student.loss": "mse"}, [6, 7]),
        ({"student.trainable": "all"}, [4]),
        ({"images.short_side_px": (128, 320)}, [9]),
        ({"student.learning_rate": 2.5e-4}, [10]),
        ({"evaluate.precision": "float16"}, []),
    ],
)
def test_a_swept_value_stands_where_the_sweep_or_else_the_spec_says_it(
    swept: dict[str, Any], lines: list[int]
) -> None:
    document = parse_document(Path("stride.yaml"), SPEC, {})

    assert spec_lines(document, swept) == lines


def test_origins_keep_of_each_stage_what_a_reader_asks_and_no_more() -> None:
    made = {"device": "cpu", "host": "here", "commit": "0123abc", "versions": {}, "ended_ms": 1,
            "seconds": 2.0, "plugins": {"losses/mse 1": {}}}  # fmt: skip
    stage = {"kind": "evaluate", "version": 5, "inputs": {}, "made": made, "backbone": "b"}
    backbone = {"plugin": "patchwork", "files": {"a": "00ff"}, "settings": {"sizes": {}}}
    rows = [baseline(38), teacher(32, 45)]
    results = results_of(rows, spec=SPEC, provenance={"stages": {"teacher32": stage},
                                                      "backbones": {"b": backbone}})  # fmt: skip

    origins = origins_of([results])

    del made["plugins"]
    assert origins["stages"] == {"teacher32": stage | {"made": made}}
    assert origins["backbones"] == {"b": {"plugin": "patchwork", "files": {"a": "00ff"}}}
    assert [row["lines"] for row in origins["rows"]] == [[], [6]]
    assert [row["stages"] for row in origins["rows"]] == [row.stages for row in rows]


def test_a_row_has_the_run_that_shows_its_method_of_its_trial() -> None:
    link = RunLink("abc", "http://127.0.0.1:5000/#/experiments/1/runs/abc", "spar-bench ui")
    rows = [baseline(38, trial="t"), teacher(32, 45, trial="t"), teacher(16, 46, trial="u")]

    origins = origins_of([results_of(rows)], {("stride", "t", "teacher"): link})

    assert [row["run"] for row in origins["rows"]] == [None, link._asdict(), None]


@pytest.mark.parametrize("spec", ["", "a: [", "- a list"])
def test_a_spec_that_is_no_spec_has_no_lines(spec: str) -> None:
    results = replace(results_of([teacher(32, 45)]), spec=spec)

    assert origins_of([results])["rows"][0]["lines"] == []


def test_rows_of_several_experiments_follow_each_other_under_the_columns_of_all() -> None:
    first = results_of([baseline(38), teacher(32, 45)], spec=SPEC)
    swept = {"teacher.window_px": 64, "student.epochs": 3}
    second = results_of([teacher(16, 46, experiment="other", swept=swept)], experiment="other")

    origins = origins_of([first, second])

    at = {name: origins["columns"].index(name) for name in ("experiment", "miou", "student.epochs")}
    found = [[row["values"][place] for place in at.values()] for row in origins["rows"]]
    assert found == [["stride", 0.38, None], ["stride", 0.45, None], ["other", 0.46, 3]]
    assert origins["specs"] == {"stride": SPEC, "other": ""}


def test_what_made_a_number_is_known_for_columns_of_the_results_alone() -> None:
    assert set(MADE_BY) <= set(COLUMNS)
