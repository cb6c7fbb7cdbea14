"""How MLflow's interface is started, and the view prepared for it."""

import json
import socket

import pytest

from spar_bench.errors import SparBenchError
from spar_bench.results import Cost
from spar_bench.track import Mirror, ui_command, view_urls
from tests.track.conftest import die, make_record, make_row, make_sweep, mirror, query


def test_server_is_bound_to_this_machine_without_telemetry_or_jobs(uri: str) -> None:
    command, environment = ui_command(uri, port=5071)

    assert command[1:4] == ["-m", "mlflow", "server"]
    assert environment["MLFLOW_BACKEND_STORE_URI"] == uri  # which `ps` does not show
    assert uri not in command
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
    sweep = Mirror(uri, make_sweep())
    sweep.record([])
    die(sweep, uri)

    ui_command(uri)

    assert query(uri, "SELECT status FROM runs") == [("KILLED",)]


def test_prepared_view_shows_what_varies(uri: str) -> None:
    mirror(
        uri,
        make_record(name="a", params={"teacher.stride_px": 28, "teacher.window_px": 64}),
        make_record(
            name="b",
            params={"teacher.stride_px": 12, "teacher.window_px": 64},
            rows=[make_row(miou=0.6, cost=Cost(gflops=70.0, n_windows=88))],
        ),
        make_record(name="c", method="pretrained", params={}, rows=[make_row(cost=Cost())]),
    )

    (state,) = query(
        uri, "SELECT value FROM experiment_tags WHERE key = 'mlflow.sharedViewState.spar'"
    )
    view = json.loads(state[0])
    parallel, *scatters = view["compareRunCharts"]
    assert view["selectedColumns"] == [
        "params.`method`", "params.`teacher.stride_px`", "metrics.`miou`", "metrics.`gflops`",
    ]  # fmt: skip
    assert parallel["selectedParams"] == ["method", "teacher.stride_px"]
    assert parallel["selectedMetrics"] == ["gflops", "miou"]
    assert [chart["xaxis"]["key"] for chart in scatters] == [
        "gflops", "method", "teacher.stride_px",
    ]  # fmt: skip
    (url,) = view_urls(uri, port=5071).values()
    assert url.startswith("http://127.0.0.1:5071/#/experiments/1/runs?")
    assert url.endswith("viewStateShareKey=spar")
