"""What the shell completes."""

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from spar_bench.cli import main
from tests.small import spar_bench, write_spec


def completed(*line: str) -> list[str]:
    """Return the shell's completions for the last word of a command line."""
    shell = ShellComplete(main, {}, "spar-bench", "_SPAR_BENCH_COMPLETE")
    return [item.value for item in shell.get_completions(list(line[:-1]), line[-1])]


def test_shell_completes_specs_trials_and_experiments(in_swept: Path) -> None:
    assert completed("refi") == ["refiners"]
    assert "experiments/" in completed("sweep", "")
    assert completed("check", "experiments/t") == ["experiments/tiny.yaml"]
    assert completed("plan", "t") == completed("status", "t") == ["tiny"]
    assert completed("plan", "nowhere/") == []
    strides = ["stride_px=32", "stride_px=64"]
    assert completed("sweep", "experiments/tiny.yaml", "--only", "stride") == strides
    assert completed("plan", "tiny", "--only", "stride") == strides
    assert completed("explain", "stride") == strides
    assert completed("explain", "tiny/stride_px=6") == ["tiny/stride_px=64"]
    assert completed("report", "t") == ["tiny"]


def test_completion_of_an_unreadable_spec_offers_nothing(here: Path) -> None:
    assert completed("sweep", write_spec("teachr: {}\n"), "--only", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed(shell: str) -> None:
    assert "_SPAR_BENCH_COMPLETE" in spar_bench("completion", shell).stdout
