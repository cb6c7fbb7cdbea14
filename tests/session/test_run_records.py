"""The runs of a sweep: one for each method of a trial, with what decides it and its files."""

import csv
from pathlib import Path

import pytest

from spar_bench import report
from spar_bench.conflicts import read_spec
from spar_bench.resolve import Resolver
from spar_bench.results import Results, Row
from spar_bench.session.collect import Collector
from spar_bench.session.planning import lay_out
from spar_bench.session.results import results
from spar_bench.session.run_records import run_keys, run_records
from spar_bench.store import Store
from spar_bench.track import RunRecord
from tests.small import copy_store
from tests.track.conftest import make_row


def records_of(path: str) -> list[RunRecord]:
    """Return the runs of a spec that has been swept."""
    loaded, store = read_spec(Path(path)), Store(Path(".spar_bench"))
    [suite] = lay_out([loaded], store, Resolver())
    collector = Collector(loaded.experiment, suite.whole, store)
    return run_records(results(collector, loaded, spec_hash="", seeds=[0], objectives={}), store)


def artifacts(path: str) -> dict[str, Path]:
    """Return the files of the first run of a spec that has been swept."""
    return records_of(path)[0].read().artifacts


def datasets(table: Path) -> set[str]:
    """Return the data sets that a per-class table has lines of."""
    return {line["dataset"] for line in csv.DictReader(table.read_text().splitlines())}


def results_of(*rows: Row) -> Results:
    """Return results with these rows, whose groups share their settings."""
    settings = {
        "backbone": {"name": "patchwork", "path": None},
        "teacher": {"window_px": None, "stride_px": 28, "keep": True},
        "student": {"trainable": "all", "checkpoint": None},
        "evaluate": {"average": "logits", "methods": ["pretrained", "teacher", "student"]},
        "measure": {"latency": False},
    }
    return Results(
        experiment="stride",
        question="",
        rows=list(rows),
        costs=[],
        classes={row.classes: ["sky", "sea"] for row in rows},
        provenance={"stages": {}},
        protocols={},
        settings={row.group: settings for row in rows},
    )


def test_run_has_only_the_settings_that_decide_it(here: Path, swept: Path) -> None:
    runs = {record.name: record for record in records_of(copy_store(swept))}

    parts = {name: {key.partition(".")[0] for key in run.params} for name, run in runs.items()}
    assert parts == {
        "stride_px=64": {"backbone", "teacher", "evaluate"},
        "stride_px=32": {"backbone", "teacher", "evaluate"},
        "pretrained": {"backbone", "evaluate"},
        "learning_rate=0.001,seed=0": {"backbone", "images", "teacher", "student", "evaluate"},
    }
    assert runs["stride_px=32"].params["evaluate.average"] == "logits"
    assert "evaluate.average" not in runs["pretrained"].params
    assert all("evaluate.methods" not in run.params for run in runs.values())


def test_curve_and_times_are_those_of_the_runs_stages(here: Path, swept: Path) -> None:
    runs = {record.name: record.read() for record in records_of(copy_store(swept))}

    made = {
        stage.manifest["kind"]: stage.manifest["made"]
        for stage in Store(Path(".spar_bench")).finished()
    }
    student = runs["learning_rate=0.001,seed=0"]
    assert [step for step, _, _ in student.curve] == [0, 1]
    assert made["images"]["started_ms"] >= student.started_ms
    assert made["student"]["ended_ms"] <= student.ended_ms
    assert [run.curve for name, run in runs.items() if not name.startswith("learning")] == [[]] * 3
    assert runs["pretrained"].started_ms >= student.started_ms


def test_evaluations_that_trials_share_are_one_run_of_their_own() -> None:
    taught = [
        make_row(method="student", group=g, trial=f"{g},seed=0", seed=0, loss="mse", average=None,
                 stages={"evaluate": f"student {g}"})
        for g in ("a", "b")
    ]  # fmt: skip
    shared = [
        make_row(method=method, group=g, trial=f"{g},seed=0", stages={"evaluate": method})
        for g in ("a", "b")
        for method in ("pretrained", "teacher")
    ]
    found = results_of(*shared, *taught)

    records = run_records(found, Store(Path("none"), make=False))

    names = {"a,seed=0", "b,seed=0", "pretrained", "teacher stride_px=28"}
    assert {record.name for record in records} == names
    assert {record.key for record in records} == run_keys(found)


def test_imported_student_has_its_checkpoint_and_nothing_of_a_training() -> None:
    found = results_of(
        make_row(
            method="student", checkpoint="spar.ckpt", window_px=None, stride_px=None, average=None
        )
    )
    found.settings["stride_px=28"]["student"]["checkpoint"] = "spar.ckpt"

    [record] = run_records(found, Store(Path("none"), make=False))

    assert record.params == {"backbone.name": "patchwork", "student.checkpoint": "spar.ckpt"}


@pytest.mark.parametrize(
    ("statuses", "shown"),
    [
        (["finished", "failed"], ("failed", "why")),
        (["blocked", "finished"], ("blocked", "why")),
        (["finished", "skipped"], ("skipped", "why")),
        (["finished", "finished"], ("finished", "")),
    ],
)
def test_run_is_finished_when_all_its_rows_are(statuses: list[str], shown: tuple[str, str]) -> None:
    rows = [
        make_row(status=status, eval_short_side_px=side, reason="why")
        for side, status in enumerate(statuses)
    ]

    [record] = run_records(results_of(*rows), Store(Path("none"), make=False))

    assert (record.status, record.reason) == shown


def test_what_has_not_been_run_is_no_run_but_keeps_its_key() -> None:
    found = results_of(make_row(status="skipped"))

    assert run_records(found, Store(Path("none"), make=False)) == []
    assert len(run_keys(found)) == 1


def test_table_has_the_label_that_the_spec_has_now(here: Path, swept: Path) -> None:
    path = Path(copy_store(swept))
    before = artifacts(str(path))
    path.write_text(path.read_text().replace("name: patchwork,", "name: patchwork, label: scenes,"))

    after = artifacts(str(path))

    assert datasets(before["per_class.csv"]) == {"patchwork"}
    assert datasets(after["per_class.csv"]) == {"scenes"}
    assert before["panel.png"] != after["panel.png"]


def test_pictures_are_drawn_once_and_anew_where_the_drawing_was_cut_short(
    here: Path, swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, drawn = copy_store(swept), []
    first = artifacts(path)
    monkeypatch.setattr(report, "draw_panel", lambda *_: drawn.append("panel"))

    again = artifacts(path)
    n_drawn = len(drawn)
    first["panel.png"].unlink()
    artifacts(path)

    assert (again, n_drawn, drawn) == (first, 0, ["panel"])
