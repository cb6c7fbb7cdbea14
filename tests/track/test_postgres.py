"""MLflow's runs in PostgreSQL, started here: sweeps of a lab on one server, and its password."""

import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spar_bench.errors import StoreError
from spar_bench.track.client import connect, experiments, search_runs
from tests.small import TINY, spar_bench, write_spec
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
