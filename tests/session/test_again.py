"""A finished sweep again: it needs neither torch nor MLflow, and notices what has changed."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from spar_bench import machines
from spar_bench.results import Results
from spar_bench.stages.latency import Machine
from tests.small import TIMED, TINY, printed, runs, spar_bench, write_spec

AGAIN = """
import sys
from spar_bench.session.sweep import sweep

outcome = sweep("experiments/tiny.yaml")
heavy = {"torch", "mlflow", "optuna", "pandas", "matplotlib"} & set(sys.modules)
print(outcome.n_made, all(outcome.trials.values()), sorted(heavy))
"""


@pytest.fixture(scope="module")
def timed(database: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Finish a sweep with timings in a process of its own; return its folder, and a copy."""
    above = tmp_path_factory.mktemp("timed")
    folder, copy = above / "folder", above / "copy"
    folder.mkdir()
    shutil.copy(database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        _work_in(folder, patch)
        write_spec(TIMED)
        assert printed(AGAIN, cwd=folder, may_warn=True).startswith("15 True")
    shutil.copytree(folder, copy)
    return folder, copy


@pytest.fixture
def finished(timed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a sweep with timings has finished, as it was then."""
    folder, copy = timed
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    _work_in(folder, monkeypatch)
    return folder


def _work_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.chdir(folder)


def test_it_needs_neither_torch_nor_mlflow(finished: Path) -> None:
    before = (finished / ".spar_bench/results/tiny/results.json").read_bytes()

    assert printed(AGAIN, cwd=finished) == "0 True []"

    assert (finished / ".spar_bench/results/tiny/results.json").read_bytes() == before


def test_a_database_that_was_deleted_is_filled_again(finished: Path, database: Path) -> None:
    shown = runs()
    shutil.copy(database, finished / "mlflow.db")
    assert runs() != shown

    printed(AGAIN, cwd=finished, may_warn=True)

    assert [status for _, status in runs()] == [status for _, status in shown]


def test_runs_that_were_deleted_in_mlflow_are_shown_again(finished: Path) -> None:
    with closing(sqlite3.connect("mlflow.db")) as connection, connection:
        connection.execute("UPDATE runs SET lifecycle_stage = 'deleted'")

    found = printed(AGAIN, cwd=finished, may_warn=True)

    assert "mlflow" in found


@pytest.mark.parametrize("content", ["", "{}", "[]", None])
def test_without_a_memory_of_the_machine_torch_is_asked(
    finished: Path, content: str | None
) -> None:
    path = finished / "cache/spar-bench/machine.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)

    assert printed(AGAIN, cwd=finished, may_warn=True) == "0 True ['torch']"
    assert printed(AGAIN, cwd=finished) == "0 True []"


def test_a_memory_of_another_machine_is_corrected_before_anything_is_made(finished: Path) -> None:
    path = finished / "cache/spar-bench/machine.json"
    document = json.loads(path.read_text())
    document["machine"]["threads"] += 5
    path.write_text(json.dumps(document))

    # Timings of that machine are missing, so torch is asked; those of this one are there.
    assert printed(AGAIN, cwd=finished, may_warn=True) == "0 True ['torch']"
    found = json.loads(path.read_text())["machine"]["threads"]
    assert found == document["machine"]["threads"] - 5


def test_other_circumstances_are_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    machine = Machine(host="here", device="cpu", threads=2, torch="2")
    machines.remember(machine)
    assert machines.remembered() == machine

    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    assert machines.remembered() is None


def test_memory_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    machines.remember(Machine(host="here", device="cpu", threads=2, torch="2"))

    assert machines.remembered() is None


def test_report_of_the_same_results_is_kept(here: Path, swept: Path) -> None:
    store = ["--store", str(swept / ".spar_bench")]
    spar_bench("report", "tiny", *store)
    times = {path: path.stat().st_mtime_ns for path in Path("reports/tiny").iterdir()}

    spar_bench("report", "tiny", *store)

    assert {path: path.stat().st_mtime_ns for path in Path("reports/tiny").iterdir()} == times


@pytest.mark.parametrize("name", ["table.md", "accuracy_vs_gflops.png"])
def test_report_with_a_file_altered_or_gone_is_written_again(
    here: Path, swept: Path, name: str
) -> None:
    store = ["--store", str(swept / ".spar_bench")]
    spar_bench("report", "tiny", *store)
    path = Path("reports/tiny", name)
    content = path.read_bytes()

    for damage in (lambda: path.write_bytes(content + b"x"), path.unlink):
        damage()
        spar_bench("report", "tiny", *store)
        assert path.read_bytes() == content


def test_report_of_other_results_or_columns_is_written_again(here: Path) -> None:
    spar_bench("sweep", write_spec(TINY))
    spar_bench("report", "tiny")
    first = Path("reports/tiny/table.md").read_text()

    spar_bench("report", "tiny", "--columns", "miou")
    second = Path("reports/tiny/table.md").read_text()
    spar_bench("sweep", "experiments/tiny.yaml", "--seeds", "2")
    spar_bench("report", "tiny")
    third = Path("reports/tiny/table.md").read_text()

    assert len({first, second, third}) == 3
    assert {row.seed for row in Results.load(Path(".spar_bench/results/tiny")).rows} > {0, 1}


def test_page_of_a_suite_is_kept_too_until_a_member_changes(here: Path) -> None:
    for name in ("a", "b"):
        _write(name)
    spar_bench("sweep", "experiments/both/")
    spar_bench("report", "--suite")
    pages = sorted(Path("reports").rglob("index.html"))
    times = [path.stat().st_mtime_ns for path in pages]

    spar_bench("report", "--suite")
    assert [path.stat().st_mtime_ns for path in pages] == times

    before = [path.read_text() for path in pages]
    for page in pages:
        page.write_text("x")
        spar_bench("report", "--suite")
        assert [path.read_text() for path in pages] == before
    assert len(pages) == 3


def _write(name: str) -> None:
    folder = Path("experiments/both")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(TINY, encoding="utf-8")
