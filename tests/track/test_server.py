"""MLflow's own server, started here: runs over HTTP, and files that it keeps for its clients."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from spar_bench.engine.events import Event
from spar_bench.results import Results
from spar_bench.session.sweep import Options, sweep
from spar_bench.session.watcher import Silent
from spar_bench.stages.base import Stage
from spar_bench.track.client import ENVIRONMENT, connect, experiments, search_runs
from tests.small import TINY, runs, spar_bench, write_spec


class Server:
    """A server on the loopback, with its runs and files in a folder."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.files = folder / "files"
        shutil.copy(database, folder / "server.db")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/server.db"),
            *("--serve-artifacts", "--artifacts-destination", str(self.files)),
        ]
        self._folder = folder

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=os.environ | ENVIRONMENT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ends_at = time.monotonic() + 120
        while not self._answers():
            said = (self._folder / "log").read_text()
            assert self._process.poll() is None, said
            assert time.monotonic() < ends_at, said
            time.sleep(0.2)

    def stop(self) -> None:
        """End it and its servants at once, if it runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.read() == b"OK")
        except URLError:
            return False


@pytest.fixture(scope="module")
def server(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs."""
    started = Server(tmp_path_factory.mktemp("server"), database)
    started.start()
    try:
        yield started
    finally:
        started.stop()


class StopsServer(Silent):
    """Ends the server when a student is begun."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def note(self, event: Event, stage: Stage) -> None:
        """End it at the right stage."""
        if (event.kind, stage.kind) == ("started", "student"):
            self._server.stop()


def shown(uri: str, experiment: str) -> dict[str, Any]:
    """Return the runs of an experiment by name, asked for over HTTP."""
    client = connect(uri)
    [found] = [one.experiment_id for one in experiments(client) if one.name == experiment]
    return {run.info.run_name: run for run in search_runs(client, [found], "")}


def mious_shown(found: dict[str, Any]) -> list[float]:
    """Return the mIoU of each run that has one."""
    return sorted(run.data.metrics["miou"] for run in found.values() if "miou" in run.data.metrics)


def mious(results: Path) -> list[float]:
    """Return the mIoU of each row."""
    return sorted(row.miou for row in Results.load(results).rows if row.miou is not None)


@pytest.fixture(scope="module")
def said(server: Server, database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a sweep has printed that the server shows, in whose folder the test is now."""
    folder = tmp_path_factory.mktemp("client")
    shutil.copy(database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("://", "://lab:s3cret@"))
        patch.chdir(folder)
        yield spar_bench("sweep", write_spec(TINY)).output


def test_runs_are_shown_with_their_numbers(server: Server, said: str) -> None:
    found = shown(server.uri, "tiny")

    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert len(found) == 5
    assert mious_shown(found) == mious(Path(".spar_bench/results/tiny"))


def test_files_are_on_the_server_alone(server: Server, said: str, tmp_path: Path) -> None:
    found = shown(server.uri, "tiny")
    [sweep_id] = [run.info.run_id for name, run in found.items() if name.startswith("tiny ")]
    client = connect(server.uri)

    names = {one.path for one in client.list_artifacts(sweep_id)}
    copy = Path(client.download_artifacts(sweep_id, "results.json", str(tmp_path)))

    assert {"per_class.csv", "results.json", "spec.yaml"} <= names
    assert copy.read_bytes() == Path(".spar_bench/results/tiny/results.json").read_bytes()
    [kept] = server.files.rglob(f"{sweep_id}/artifacts/results.json")
    assert kept.read_bytes() == copy.read_bytes()
    here = {path.name for path in Path().iterdir()}
    assert here == {".spar_bench", "experiments", "mlflow.db"}
    assert runs() == []


def test_password_in_the_address_is_said_and_written_nowhere(server: Server, said: str) -> None:
    spar_bench("report", "tiny")
    told = said + spar_bench("doctor").output

    assert "http://lab:***@127.0.0.1" in told
    assert "s3cret" not in told
    written = [path for path in Path().rglob("*") if path.is_file()]
    assert [path for path in written if b"s3cret" in path.read_bytes()] == []
    found = shown(server.uri, "tiny").values()
    assert not any("s3cret" in f"{run.data.tags} {run.data.params}" for run in found)


@pytest.mark.slow
def test_server_that_ends_meanwhile_stops_no_sweep_and_mirror_catches_up(
    here: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    spec, options = write_spec(TINY, "cut"), Options(tracking_uri=server.uri)

    outcome = sweep(Path(spec), options, watcher=StopsServer(server))
    warnings = [one.getMessage() for one in caplog.records if one.name.startswith("spar_bench")]
    server.start()
    before = shown(server.uri, "cut")
    caught_up = spar_bench("mirror", "cut", "--tracking-uri", server.uri)

    assert {row.status for row in outcome.rows} == {"finished"}
    [warning] = warnings
    assert warning.startswith(f"tracking URI {server.uri}: must be a store that MLflow can read")
    assert warning.endswith("the sweep goes on, and spar-bench mirror cut shows it later")
    assert len(before) < 5
    assert caught_up.output == "cut: shown\n"
    after = shown(server.uri, "cut")
    assert len(after) == 5
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert mious_shown(after) == mious(Path(".spar_bench/results/cut"))
