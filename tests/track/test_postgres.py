"""Runs of MLflow and studies of Optuna in PostgreSQL, started here; and its password."""

import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spar_bench.conflicts import read_spec
from spar_bench.errors import StoreError
from spar_bench.session.search import Searcher
from spar_bench.session.study import DATABASE_VARIABLE
from spar_bench.store import Store
from spar_bench.track.client import connect, experiments, search_runs
from tests.session.searches import TEACHERS
from tests.small import TINY, one_line, spar_bench, write_spec
from tests.soak.ground import Database

USERS = {entry.pw_name for entry in pwd.getpwall()}
pytestmark = pytest.mark.skipif(
    not shutil.which("initdb") or os.getuid() != 0 or "postgres" not in USERS,
    reason="it needs PostgreSQL's programs and its user, and root to become that",
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Database]:
    """An empty server, in a folder that its user can reach."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="spar-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        with Database(folder / "postgres", port) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_sweep_is_mirrored_and_its_password_is_written_nowhere(
    here: Path, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.uri)

    said = spar_bench("sweep", write_spec(TINY)).output + spar_bench("doctor").output
    spar_bench("report", "tiny")

    client = connect(postgres.uri)
    named = {one.name: one.experiment_id for one in experiments(client)}
    runs = search_runs(client, [named["tiny"]], "")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == 5
    assert "postgresql+psycopg2://postgres:***@127.0.0.1" in said
    assert "s3cret" not in said
    written = [path for path in here.rglob("*") if path.is_file()]
    assert [path for path in written if b"s3cret" in path.read_bytes()] == []
    tags = [str(run.data.tags) + str(run.data.params) for run in runs]
    assert not any("s3cret" in text for text in tags)


def test_wrong_password_is_one_line_without_it(postgres: Database) -> None:
    with pytest.raises(StoreError, match="password authentication failed") as caught:
        connect(postgres.uri.replace("s3cret", "hunter2"))

    assert "hunter2" not in str(caught.value)
    assert str(caught.value).startswith("tracking URI postgresql+psycopg2://postgres:***@")
    assert "\n" not in str(caught.value)


def test_server_that_is_down_is_one_line(postgres: Database) -> None:
    port = postgres.uri.rpartition(":")[2].partition("/")[0]

    with pytest.raises(StoreError, match="Connection refused") as caught:
        connect(postgres.uri.replace(port, "9"))

    assert "s3cret" not in str(caught.value)


def test_two_searches_share_the_trials_of_a_study(
    here: Path, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, f"{postgres.uri.rpartition('/')[0]}/template1")
    loaded = read_spec(Path(write_spec(TEACHERS)))
    store = Path(".spar_bench")

    both = [iter(Searcher(loaded, Store(store))) for _ in range(2)]
    asked = [next(one) for one in both]
    for one in asked:
        one.record([0.5, 1.0])
    spar_bench("sweep", "experiments/tiny.yaml")

    assert [one.trial.number for one in asked] == [0, 2]  # 1 is an impossible draw
    study = Searcher(loaded, Store(store)).study
    assert [trial.number for trial in study.trials] == list(range(5))
    assert all(trial.state.is_finished() for trial in study.trials)
    assert study.trials[2].values == [0.5, 1.0]
    written = [path for path in here.rglob("*") if path.is_file()]
    assert [path for path in written if b"s3cret" in path.read_bytes()] == []


def test_database_that_mlflow_has_is_no_place_for_a_study(
    here: Path, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(postgres.uri)
    monkeypatch.setenv(DATABASE_VARIABLE, postgres.uri)

    said = one_line(spar_bench("sweep", write_spec(TEACHERS), exits=2))

    assert "must be a database of searches alone, of this release of Optuna" in said
    assert not any(Path(".spar_bench/studies").iterdir())


def test_study_whose_server_is_down_is_one_line(
    here: Path, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = postgres.uri.rpartition(":")[2].partition("/")[0]
    monkeypatch.setenv(DATABASE_VARIABLE, postgres.uri.replace(port, "9"))

    result = spar_bench("sweep", write_spec(TEACHERS), exits=2)

    said = one_line(result)
    assert said.startswith("SPAR_BENCH_STUDIES: must be a database that answers, but postgresql+")
    assert "Connection refused" in said
    assert "s3cret" not in result.output
