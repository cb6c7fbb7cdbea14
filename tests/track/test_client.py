"""Opening a store: created completely by any number of processes, or refused in one line."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from spar_bench.errors import StoreError
from spar_bench.track import Mirror, answers
from spar_bench.track.client import answering, connect
from tests.track.conftest import make_record, make_sweep, mirror, query

SWEEPS = """
import os, sys, time
from mlflow.tracking import MlflowClient  # once, for six processes that then start together
from tests.track.conftest import make_record, make_sweep, mirror

uri, n = sys.argv[1], int(sys.argv[2])
children = []
for index in range(n):
    child = os.fork()
    if child == 0:
        records = [make_record(name=f"t{i}") for i in range(3)]
        mirror(uri, *records, sweep=make_sweep(f"e{index}"))
        os._exit(0)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
sys.exit(sum(code != 0 for code in codes))
"""

ENDLESS = """
import sys, time
from spar_bench.track import Mirror
from tests.track.conftest import make_record, make_sweep

Mirror(sys.argv[1], make_sweep()).record([make_record()])
print("mirrored", flush=True)
time.sleep(600)
"""


def test_fresh_database_is_made_in_wal_mode_with_nothing_beside_it(uri: str) -> None:
    connect(uri)

    assert query(uri, "PRAGMA journal_mode") == [("wal",)]


def test_file_that_is_no_database_is_one_line_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database\n" * 100)

    with pytest.raises(StoreError, match=r"^tracking URI .*file is not a database.*") as caught:
        connect(f"sqlite:///{tmp_path}/mlflow.db")
    assert "\n" not in str(caught.value)


def test_folder_in_the_databases_place_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^tracking URI .*unable to open database file"):
        connect(f"sqlite:///{tmp_path}")


def test_file_in_the_folders_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match=r"^tracking URI .*File exists"):
        connect(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(StoreError, match=r"^tracking URI http://127.0.0.1:9: must be") as caught:
        connect("http://127.0.0.1:9")
    assert "\n" not in str(caught.value)


def test_server_that_is_not_there_is_told_at_once_by_its_reason_alone() -> None:
    uri = "http://127.0.0.1:9"

    with pytest.raises(StoreError, match=r"but got \[Errno 111\] Connection refused; make it so"):
        connect(uri)
    with pytest.raises(StoreError, match="Connection refused"):
        answers(uri)


def test_server_that_falls_silent_is_told_by_its_reason_alone() -> None:
    told = (
        "API request to http://h:5/api failed with exception HTTPConnectionPool(host='h', port=5): "
        "Max retries exceeded with url: /api (Caused by NewConnectionError("
        "'<urllib3.connection.HTTPConnection object at 0x7f>: Connection refused'))"
    )

    with pytest.raises(StoreError) as caught, answering("http://h:5"):
        raise OSError(told)

    assert "but got NewConnectionError('Connection refused'); make it so" in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("foo://x", "a scheme that it does not know"), ("mysql+nodriver://h/d", "mysql")],
)
def test_uri_that_mlflow_does_not_know_is_one_line(uri: str, reason: str) -> None:
    with pytest.raises(StoreError, match=rf"^tracking URI .* but got .*{reason}.*; make") as caught:
        connect(uri)
    assert "\n" not in str(caught.value)


def test_looking_at_a_store_makes_none(tmp_path: Path, uri: str) -> None:
    assert answers(uri)
    assert not answers(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_server_that_accepts_and_never_answers_is_given_up_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"

        with pytest.raises(StoreError, match=r"but got ReadTimeoutError\(.*; make it so"):
            connect(uri, patience_s=1)


@pytest.mark.slow
def test_six_processes_at_once_share_one_fresh_file(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/fresh/mlflow.db"

    ended = subprocess.run([sys.executable, "-c", SWEEPS, uri, "6"], check=False)

    assert ended.returncode == 0
    runs = query(
        uri, "SELECT e.name, r.name, r.status FROM runs r JOIN experiments e USING (experiment_id)"
    )
    assert sorted(runs) == [
        (experiment, name, "FINISHED")
        for experiment in (f"e{index}" for index in range(6))
        for name in (f"{experiment} 5bec5bec", "t0", "t1", "t2")
    ]
    assert not list((tmp_path / "fresh").glob("*.new*"))


@pytest.mark.slow
def test_sweep_ended_by_kill_9_is_found_and_taken_up_again(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, uri], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mirrored\n"
        process.kill()
    status = "SELECT status FROM runs ORDER BY name"
    left = query(uri, status)

    Mirror(uri, make_sweep("window")).record([])
    ended = query(uri, status)
    mirror(uri, make_record())

    assert left == [("RUNNING",), ("FINISHED",)]
    assert ended[:2] == [("KILLED",), ("FINISHED",)]
    assert query(uri, status)[:2] == [("FINISHED",), ("FINISHED",)]
