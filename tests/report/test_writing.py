"""A report is complete, the same each time, and without remains of an older one."""

import cProfile
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import CodeType

import numpy as np
import pytest

from spar_bench.report import write
from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.figures import plan_figures
from spar_bench.results import Cost, Results, Row
from tests.report.synthetic import (
    InMemory,
    baseline,
    evaluations_of,
    results_of,
    row,
    students,
    teacher,
)

TEXTS = {
    "README.md", "costs.csv", "differences.csv", "index.html", "manifest.json", "protocols.json",
    "provenance.json", "results.csv", "table.md", "table.tex",
}  # fmt: skip


def small(**changes: object) -> Results:
    """Return the smallest results with something to see: a baseline and two strides."""
    return results_of([baseline(38), teacher(16, 44), teacher(12, 45)], **changes)


def without_cost(rows: list[Row]) -> list[Row]:
    """Return the rows with nothing measured, so that few figures apply."""
    return [replace(r, cost=Cost()) for r in rows]


def bare(**changes: object) -> Results:
    """Return results that, without their evaluations, have no figure at all."""
    return results_of(without_cost([baseline(38)]), **changes)


def names(results: Results) -> list[str]:
    """Return the names of the figures that results call for."""
    return [
        plan.name
        for plan in plan_figures(results, read_aggregates(results), evaluations_of(results))
    ]


def test_a_report_holds_what_its_page_names_and_nothing_half_written(tmp_path: Path) -> None:
    paths, _ = write(small(), evaluations_of(small()), tmp_path / "deep" / "stride")

    folder = tmp_path / "deep" / "stride"
    figures = [f"{name}.{ending}" for name in names(small()) for ending in ("png", "svg", "pdf")]
    assert {path.name for path in folder.iterdir()} == TEXTS | set(figures)
    assert sorted(paths) == sorted(folder.iterdir())
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# stride\n\n> What does a finer stride buy,")
    linked = set(re.findall(r"\]\(([^)]+)\)", page))
    assert linked == (TEXTS | set(figures)) - {"README.md", "manifest.json"}
    assert "| teacher s = 16 | teacher s = 12 |" not in page  # 16 is the coarsest: 12 less 16
    assert "| teacher s = 12 | teacher s = 16 |" in page


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    results = results_of([baseline(38)])
    first, second = (write(results, InMemory(), tmp_path / name)[0] for name in ("a", "b"))

    for a, b in zip(first, second, strict=True):
        assert a.name == b.name
        assert a.read_bytes() == b.read_bytes()


def test_figures_that_no_longer_apply_are_removed_and_other_files_left_alone(
    tmp_path: Path,
) -> None:
    rows = without_cost([teacher(16, 44), teacher(12, 45)])
    write(results_of(rows), InMemory(), tmp_path)
    altered, stale, mine = (
        tmp_path / name
        for name in ("accuracy_vs_stride.svg", "accuracy_vs_stride.png", "accuracy_vs_mood.png")
    )
    altered.write_text("retouched", encoding="utf-8")
    mine.write_bytes(b"mine")

    write(bare(), InMemory(), tmp_path)

    assert not stale.exists()
    assert altered.read_text(encoding="utf-8") == "retouched"
    assert mine.read_bytes() == b"mine"


def test_a_manifest_cannot_make_it_remove_files_elsewhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("", encoding="utf-8")
    folder = tmp_path / "report"
    folder.mkdir()
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (folder / "manifest.json").write_text(json.dumps({"../outside.txt": empty}), encoding="utf-8")

    write(bare(), InMemory(), folder)

    assert outside.exists()


def test_without_any_row_or_result_there_is_still_a_page(tmp_path: Path) -> None:
    failed = row("teacher", None, status="failed", reason="out of |memory|", cost=Cost())
    write(results_of([]), InMemory(), tmp_path / "nothing")
    write(results_of([failed]), InMemory(), tmp_path / "failed")

    assert "No results yet." in (tmp_path / "nothing" / "README.md").read_text(encoding="utf-8")
    page = (tmp_path / "failed" / "README.md").read_text(encoding="utf-8")
    assert r"- a-0, teacher, patchwork at 256 px: failed (out of \|memory\|)" in page
    assert {path.name for path in (tmp_path / "failed").iterdir()} == TEXTS


def test_provenance_is_written_as_it_was_given(tmp_path: Path) -> None:
    write(bare(provenance={"seeds": [0, 1], "device": "cpu"}), InMemory(), tmp_path)

    written = json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))
    assert written == {"seeds": [0, 1], "device": "cpu"}


def test_a_cost_that_nothing_measured_has_no_figure() -> None:
    rows = [baseline(38), *students("all", 45, n_seeds=1)]
    without_latency = [
        replace(r, cost=replace(r.cost, latency_p50_ms=None, cost_status="not_measured"))
        for r in rows
    ]

    assert names(results_of(rows))[:2] == ["accuracy_vs_gflops", "accuracy_vs_latency"]
    assert "accuracy_vs_latency" not in names(results_of(without_latency))
    assert "accuracy_vs_gflops" not in names(results_of(without_cost(rows)))


def test_data_sets_and_resolutions_are_in_the_names_of_files() -> None:
    rows = [
        baseline(38, dataset=name, eval_short_side_px=side, stages={"evaluate": f"{name}{side}"})
        for name in ("a/b", "a b")
        for side in (64, 96)
    ]

    assert names(results_of(rows)) == [
        "accuracy_vs_gflops_a_b",
        "accuracy_vs_latency_a_b",
        "accuracy_vs_resolution_a_b",
        "per_class_64px_a_b",
        "qualitative_64px_a_b",
        "per_class_96px_a_b",
        "qualitative_96px_a_b",
        "accuracy_vs_gflops_a_b_2",
        "accuracy_vs_latency_a_b_2",
        "accuracy_vs_resolution_a_b_2",
        "per_class_64px_a_b_2",
        "qualitative_64px_a_b_2",
        "per_class_96px_a_b_2",
        "qualitative_96px_a_b_2",
    ]


def test_a_search_is_shown_against_its_objectives() -> None:
    rows = [
        row("student", 0.4 + i / 100, group=f"g{i}", trial=f"t{i}", stages={"evaluate": f"e{i}"},
            swept={"student.epochs": 2 + i})
        for i in range(3)
    ]  # fmt: skip
    objectives = {f"t{i}": {"miou": 0.4, "train_gflops": 10.0 * (i + 1)} for i in range(3)}

    assert "accuracy_vs_train_gflops" in names(results_of(rows, objectives=objectives))


def test_every_figure_of_odd_names_can_be_drawn(tmp_path: Path) -> None:
    classes = ["ro$d", "{sky}", "a_b^c", "\\alpha", "tree|", "x" * 60, *"ghijkl"]
    rows = [baseline(38, dataset="d$a$t_a"), *students("a_$b", 45, n_seeds=2, dataset="d$a$t_a")]
    results = results_of(rows, experiment="odd/$x_y$")
    results = replace(results, classes=dict.fromkeys(results.classes, classes))

    paths, _ = write(results, evaluations_of(results), tmp_path)

    assert {path.suffix for path in paths} == {
        ".md",
        ".csv",
        ".html",
        ".json",
        ".tex",
        ".png",
        ".svg",
        ".pdf",
    }


def test_importing_the_report_imports_nothing_heavy() -> None:
    heavy = {"torch", "pandas", "matplotlib", "seaborn", "scipy"}
    code = f"import sys, spar_bench.report; sys.exit(str({heavy} & set(sys.modules)))"

    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)

    assert result.stderr.decode().strip() == "set()"


def test_a_failure_while_drawing_leaves_the_old_figure_and_no_litter(tmp_path: Path) -> None:
    from spar_bench.report import draw_pca

    old = tmp_path / "pca.png"
    old.write_bytes(b"old")

    with pytest.raises(ValueError, match="at least one map"):
        draw_pca(np.zeros((2, 3, 3), np.uint8), {}, old)

    assert old.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [old]


def test_difference_that_rounds_to_nothing_has_no_sign_on_the_page(tmp_path: Path) -> None:
    results = results_of([baseline(38), teacher(16, 38)])
    counts = evaluations_of(results).all_counts["pretrained"]

    write(results, InMemory({"pretrained": counts, "teacher16": counts}), tmp_path)

    line = "| teacher s = 16 | single pass | 0.0 | 0.0 to 0.0 | 12 |"
    assert line in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_nothing_is_called_for_each_pair_of_trials(tmp_path: Path) -> None:
    few, many = (calls_of_a_report(n, tmp_path / str(n)) for n in (40, 160))

    # Four times the trials; what is called for each pair of them is called sixteen times as often.
    assert max(many.values()) > 1000
    assert {name: n for name, n in many.items() if n > 8 * max(few[name], 160)} == {}


def calls_of_a_report(n_students: int, folder: Path) -> Counter[str]:
    """Return how often each of our functions is called for a report of a sweep of students."""
    trained = [
        replace(
            one,
            group=f"a-{number}",
            swept={"student.learning_rate": number / 1000},
            stages={"evaluate": f"student {number}"},
        )
        for number in range(n_students)
        for one in students("all", 40 + number / 10, n_seeds=1)
    ]
    results = results_of([baseline(38), teacher(12, 45), *trained])
    evaluations = InMemory(evaluations_of(results).all_counts)
    profile = cProfile.Profile()
    profile.runcall(write, results, evaluations, folder)
    calls = Counter[str]()
    for each in profile.getstats():
        if isinstance(each.code, CodeType) and "spar_bench" in Path(each.code.co_filename).parts:
            calls[f"{each.code.co_qualname} {each.code.co_firstlineno}"] += each.callcount
    return calls
