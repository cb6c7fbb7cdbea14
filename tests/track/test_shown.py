"""Where MLflow shows runs: addresses without secrets, and a record that is whole or refused."""

from pathlib import Path

import pytest

from spar_bench.cli.ui import ui
from spar_bench.errors import StoreError
from spar_bench.track import RunLink, Shown
from spar_bench.track.shown import PORT, server_of


@pytest.mark.parametrize(
    ("uri", "server"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://me:secret@runs.example.org/mlflow/", "https://runs.example.org/mlflow"),
        ("http://[::1]:80/?token=secret#secret", "http://[::1]:80"),
        ("sqlite:////home/me/mlflow.db", ""),
        ("postgresql://me:secret@db.example.org/runs", ""),
        ("databricks", ""),
    ],
)
def test_a_servers_address_has_no_secrets_and_a_database_has_none(uri: str, server: str) -> None:
    assert server_of(uri) == server


def test_a_run_of_a_server_is_linked_there_and_one_of_a_database_where_ui_serves_it() -> None:
    remote = Shown(server="https://runs.example.org", experiment_id="7", runs={"key": "abc"})
    local = Shown(server="", experiment_id="7", runs={"key": "abc"})

    assert remote.link("key") == RunLink(
        "abc", "https://runs.example.org/#/experiments/7/runs/abc", ""
    )
    assert local.link("key") == RunLink(
        "abc", "http://127.0.0.1:5000/#/experiments/7/runs/abc", "spar-bench ui"
    )


def test_the_command_serves_where_reports_link_to() -> None:
    [port] = [one for one in ui.params if one.name == "port"]

    assert port.default == PORT


def test_a_record_is_read_back_and_there_may_be_none(tmp_path: Path) -> None:
    shown = Shown(server="", experiment_id="1", runs={"key": "abc"})

    before = Shown.load(tmp_path)
    shown.save(tmp_path)

    assert before is None
    assert Shown.load(tmp_path) == shown


@pytest.mark.parametrize("text", ["", "[]", '{"runs": {}}', '{"server": ""'])
def test_a_record_that_cannot_be_read_is_one_line_with_a_way_out(tmp_path: Path, text: str) -> None:
    Shown(server="", experiment_id="1", runs={}).save(tmp_path)
    [path] = tmp_path.iterdir()
    path.write_text(text)

    with pytest.raises(StoreError, match=rf"^{path}: must .*; delete it") as refused:
        Shown.load(tmp_path)

    assert "\n" not in str(refused.value)
