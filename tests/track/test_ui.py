"""How MLflow's interface is started, and the view prepared for it."""

import json
import socket
from pathlib import Path

import pytest

from spar_bench.errors import SparBenchError
from spar_bench.track import Mirror, ui_command, view_urls
from tests.track.conftest import SPEC_HASH, make_trial, mirror, query


def test_server_is_bound_to_this_machine_without_telemetry_or_jobs(uri: str) -> None:
    command, environment = ui_command(uri, port=5071)

    assert command[1:4] == ["-m", "mlflow", "server"]
    assert command[command.index("--backend-store-uri") + 1] == uri
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5071"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_any_other_host_is_refused(uri: str, host: str) -> None:
    with pytest.raises(SparBenchError, match=rf"--host: .*'{host}'; use 127.0.0.1"):
        ui_command(uri, host)


def test_server_uri_is_sent_to_the_browser() -> None:
    with pytest.raises(SparBenchError, match=r"open it in a browser"):
        ui_command("http://127.0.0.1:5000")


def test_port_that_is_taken_is_one_line(uri: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        said = rf"^--port: must be free, but opening {port} failed \(Address already in use\); give"
        with pytest.raises(SparBenchError, match=said):
            ui_command(uri, port=port)


def test_dead_sweeps_are_ended_before_anyone_looks(uri: str) -> None:
    sweep = Mirror(uri)
    sweep.start("stride", "", SPEC_HASH, {})
    assert sweep._lock is not None
    sweep._lock.release(force=True)

    ui_command(uri)

    assert query(uri, "SELECT status FROM runs") == [("KILLED",)]


def test_prepared_view_shows_swept_keys_and_metrics(uri: str, tmp_path: Path) -> None:
    mirror(uri, tmp_path, [make_trial()])

    (state,) = query(
        uri, "SELECT value FROM experiment_tags WHERE key = 'mlflow.sharedViewState.spar'"
    )
    view = json.loads(state[0])
    parallel = view["compareRunCharts"][0]
    assert view["selectedColumns"][0] == "params.`teacher.stride_px`"
    assert parallel["selectedParams"] == ["teacher.stride_px"]
    assert parallel["selectedMetrics"] == ["gflops", "latency_p50_ms", "miou"]
    (url,) = view_urls(uri, port=5071).values()
    assert url.startswith("http://127.0.0.1:5071/#/experiments/1/runs?")
    assert url.endswith("viewStateShareKey=spar")
