"""The command that serves the MLflow UI, with a short program in the place of the server."""

import os
import signal
import sys

import pytest
from click.testing import CliRunner

from spar_bench import track
from spar_bench.cli import main

ADDRESS = "http://127.0.0.1:5005/#/experiments/1"


def serve(program: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Run `spar-bench ui` with a program as its server; return exit code and output."""
    command = [sys.executable, "-c", program]
    monkeypatch.setattr(track, "ui_command", lambda uri, port: (command, dict(os.environ)))
    monkeypatch.setattr(track, "view_urls", lambda uri, port: {"stride": ADDRESS})
    result = CliRunner().invoke(main, ["ui", "--port", "5005", "--tracking-uri", "sqlite:///x.db"])
    return result.exit_code, result.output


def test_ui_says_where_each_experiment_is_and_hands_on_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, output = serve("raise SystemExit(3)", monkeypatch)

    assert code == 3
    assert f"stride: {ADDRESS}" in output


def test_signal_ends_the_server_with_its_group_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    # The server itself asks its parent to end, so that the handlers are surely in place.
    program = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"

    code, _ = serve(f"import time; time.sleep(1); {program}", monkeypatch)

    assert code == 0
    assert signal.getsignal(signal.SIGTERM) == before
