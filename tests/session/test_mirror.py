"""MLflow is never needed: a store that fails costs a warning, and is caught up with later."""

import dataclasses
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from spar_bench.results import Results
from spar_bench.session.mirror import LiveMirror
from spar_bench.session.run_records import run_links
from spar_bench.store import Store
from spar_bench.track import Mirror, Shown, tracking_uri
from spar_bench.track.entry import RunRecord
from tests.small import copy_store, one_line, runs, spar_bench
from tests.track.conftest import dump, make_sweep, query

NOBODY = "http://127.0.0.1:9"
"""The discard port, on which nobody listens."""
SHOWN = ["learning_rate=0.001,seed=0", "pretrained", "stride_px=32", "stride_px=64"]


def parts_of(results: Results) -> list[Results]:
    """Return the results of each trial."""
    trials = dict.fromkeys(row.trial for row in results.rows)
    return [
        dataclasses.replace(results, rows=[row for row in results.rows if row.trial == trial])
        for trial in trials
    ]


@pytest.fixture
def store(here: Path, swept: Path) -> Store:
    """Return the store of a finished sweep, beside an empty database."""
    copy_store(swept)
    return Store(Path(".spar_bench"))


def test_sweep_goes_on_without_its_tracking_server_and_mirror_catches_up(store: Store) -> None:
    spec = "experiments/tiny.yaml"

    result = spar_bench("sweep", spec, "--tracking-uri", NOBODY)
    before = runs()
    caught_up = spar_bench("mirror", spec)
    once = dump("sqlite:///mlflow.db")
    spar_bench("mirror")

    assert "3 of 3 trials finished" in result.stdout
    [warning] = [line for line in result.stderr.splitlines() if NOBODY in line]
    assert warning.startswith(f"tracking URI {NOBODY}: must be a store that MLflow can read")
    assert warning.endswith("the sweep goes on, and spar-bench mirror tiny shows it later")
    assert before == []
    assert caught_up.stdout == "tiny: shown\n"
    assert [name for name, _ in runs() if not name.startswith("tiny ")] == SHOWN
    assert dump("sqlite:///mlflow.db") == once


def test_tracking_store_that_cannot_be_used_is_refused_by_mirror(store: Store) -> None:
    result = spar_bench("mirror", "--tracking-uri", NOBODY, exits=2)

    assert one_line(result).startswith(f"tracking URI {NOBODY}: must be a store that MLflow can")


def test_experiment_that_was_never_swept_is_refused_by_mirror(here: Path) -> None:
    assert "must hold a finished sweep" in one_line(spar_bench("mirror", exits=2))


def test_store_that_fails_for_a_while_is_tried_again_at_the_end_alone(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    results = Results.load(store.root / "results" / "tiny")
    first, *others = parts_of(results)
    live = LiveMirror(tracking_uri(None), store, make_sweep("tiny"))
    shutil.move("mlflow.db", "good.db")
    Path("mlflow.db").write_text("no database\n" * 100)

    live.show(first)
    live.settle()
    shutil.move("good.db", "mlflow.db")
    for part in others:
        live.show(part)
    live.settle()
    meanwhile = runs()
    live.end(results)

    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "file is not a database" in warning.getMessage()
    assert meanwhile == []
    assert [name for name, _ in runs()] == [*SHOWN, "tiny 5bec5bec"]
    assert {status for _, status in runs()} == {"FINISHED"}


def test_work_goes_on_while_a_trial_is_being_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = parts_of(Results.load(store.root / "results" / "tiny"))
    live = LiveMirror(tracking_uri(None), store, make_sweep("tiny"))
    record, answered = Mirror.record, threading.Event()

    def slow(self: Mirror, records: Iterable[RunRecord]) -> bool:
        assert answered.wait(timeout=60)
        return record(self, records)

    monkeypatch.setattr(Mirror, "record", slow)

    live.show(first)
    live.show(second)
    answered.set()
    live.settle()

    assert [name for name, _ in runs()] == ["stride_px=32", "stride_px=64", "tiny 5bec5bec"]
    live.interrupt()


def test_mistake_of_ours_in_showing_a_trial_is_no_warning(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = parts_of(Results.load(store.root / "results" / "tiny"))
    live = LiveMirror(tracking_uri(None), store, make_sweep("tiny"))
    monkeypatch.setattr(Mirror, "record", lambda *_: 1 / 0)
    live.show(first)

    with pytest.raises(ZeroDivisionError):
        live.interrupt()


def test_interrupted_sweep_shows_what_had_ended(store: Store) -> None:
    first, *_ = parts_of(Results.load(store.root / "results" / "tiny"))
    live = LiveMirror(tracking_uri(None), store, make_sweep("tiny"))
    live.show(first)

    live.interrupt()

    assert runs() == [("stride_px=64", "FINISHED"), ("tiny 5bec5bec", "KILLED")]


def test_mirror_notes_which_run_shows_each_method_of_a_trial(store: Store) -> None:
    results = Results.load(store.root / "results" / "tiny")
    spar_bench("mirror")

    shown = Shown.load(store.root / "results" / "tiny")

    assert shown is not None
    links = run_links(results, shown)
    names = dict(query("sqlite:///mlflow.db", "SELECT run_uuid, name FROM runs"))
    found = {(trial, method): names[link.id] for (_, trial, method), link in links.items()}
    assert found == {
        ("stride_px=64", "teacher"): "stride_px=64",
        ("stride_px=32", "teacher"): "stride_px=32",
        ("learning_rate=0.001,seed=0", "pretrained"): "pretrained",
        ("learning_rate=0.001,seed=0", "student"): "learning_rate=0.001,seed=0",
    }


def test_numbers_that_were_made_since_the_mirror_have_no_run(store: Store) -> None:
    spar_bench("mirror")
    folder = store.root / "results" / "tiny"
    results, shown = Results.load(folder), Shown.load(folder)
    rows = [
        dataclasses.replace(row, stages=row.stages | {"evaluate": "made again"})
        if row.method == "student"
        else row
        for row in results.rows
    ]

    assert shown is not None
    links = run_links(dataclasses.replace(results, rows=rows), shown)

    assert {method for _, _, method in links} == {"teacher", "pretrained"}


def test_end_of_a_sweep_that_cannot_be_shown_is_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    first, *_ = parts_of(Results.load(store.root / "results" / "tiny"))
    live = LiveMirror(tracking_uri(None), store, make_sweep("tiny"))
    live.show(first)
    live.settle()
    query("sqlite:///mlflow.db", "DROP TABLE runs")

    live.interrupt()

    assert "no such table: runs" in caplog.text


def test_sweep_that_another_process_mirrors_leaves_its_results_to_it(store: Store) -> None:
    results = Results.load(store.root / "results" / "tiny")
    early, *_ = parts_of(results)
    spec_hash = results.provenance["spec_hash"]
    sweep = make_sweep("tiny", spec_hash)
    leader, other = (LiveMirror(tracking_uri(None), store, sweep) for _ in range(2))
    leader.show(early)
    leader.settle()

    other.end(results)
    left = runs()
    leader.end(early)

    assert [name for name, _ in left] == ["stride_px=64", f"tiny {spec_hash[:8]}"]
    assert [name for name, _ in runs()] == [*SHOWN, f"tiny {spec_hash[:8]}"]
