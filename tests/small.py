"""Experiments that run in a second or two, and a place to run them in."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from spar_bench.cli import main
from spar_bench.stage import Finished

HEAD = """\
question: Does it run?
backbone: patchwork
images: {source: patchwork, count: 2, short_side_px: [64, 72], crop: 0, flip: 0}
teacher: {window_px: 64, stride_px: 32}
student: {epochs: 2, trainable: last_1_blocks, learning_rate: 1.0e-3}
evaluate:
  datasets: [{name: patchwork, count: 2}]
  short_side_px: [72]
  templates: ["a photo of a {}."]
"""
UNTIMED = HEAD + "measure: {latency: false}\n"
GRID = """\
sweep:
  - grid: {teacher.stride_px: [64, 32]}
    set: {evaluate.methods: [teacher]}
  - grid: {student.learning_rate: [1.0e-3]}
    set: {evaluate.methods: [pretrained, student]}
"""
TINY = UNTIMED + GRID
"""Three trials, four rows, ten stages."""
TIMED = HEAD + "measure: {seconds: 0.01, image_hw: [[64, 80]]}\n" + GRID
DIVERGING = (
    UNTIMED
    + """\
sweep:
  - grid: {student.learning_rate: [1.0e+30, 1.0e-3]}
    set: {evaluate.methods: [student]}
"""
)
"""Two trials; the first one's loss is not finite after its first step."""


def write_spec(text: str, name: str = "tiny") -> str:
    """Write a spec under `experiments/` of the working directory; returns its path."""
    path = Path("experiments", f"{name}.yaml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def spar_bench(*arguments: str, exits: int = 0) -> Result:
    """Run a command in this process; a bug in it, or another exit code, fails the test."""
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == exits, result.output
    return result


def printed(
    code: str,
    *arguments: str,
    path: Path | None = None,
    cwd: Path | None = None,
    may_warn: bool = False,
) -> str:
    """Run code in a process of its own, which must end well; return what it prints.

    `path` is a folder of further packages. Only with `may_warn` may it print to standard error.
    """
    root = str(Path(__file__).parents[1])
    found = os.pathsep.join([root] if path is None else [str(path), root])
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": found},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert may_warn or result.stderr == "", result.stderr
    return result.stdout.strip()


def one_line(result: Result) -> str:
    """Return a command's standard error, which must be one line besides `reading`."""
    [line] = [line for line in result.stderr.splitlines() if not line.startswith("reading ")]
    return line


def runs(database: Path = Path("mlflow.db")) -> list[tuple[str, str]]:
    """Return the name and status of every run in MLflow that is not deleted, sorted."""
    query = "SELECT name, status FROM runs WHERE lifecycle_stage = 'active'"
    with closing(sqlite3.connect(database)) as connection:
        return sorted(connection.execute(query).fetchall())


def copy_store(swept: Path) -> str:
    """Copy store and specs of a folder where a sweep was run to the working directory."""
    shutil.copytree(swept / ".spar_bench", ".spar_bench", dirs_exist_ok=True)
    shutil.copytree(swept / "experiments", "experiments", dirs_exist_ok=True)
    return "experiments/tiny.yaml"


def lasting(stage: Finished) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a stage holds but times: its summary, and its files by content."""
    summary = {k: v for k, v in stage.summary.items() if k != "train_seconds"}
    files: dict[str, Any] = {n: entry["sha256"] for n, entry in stage.manifest["files"].items()}
    if "curve.json" in files:
        points = json.loads(stage.path("curve.json").read_text())
        files["curve.json"] = [point[:2] for point in points]
    return summary, files


def workers_on(store: str) -> list[int]:
    """Return the process ids of the workers on a store."""
    listed = subprocess.run(["ps", "-ewwo", "pid=,args="], capture_output=True, text=True).stdout
    return [
        int(line.split()[0])
        for line in listed.splitlines()
        if f"--store {store}" in line and " work " in line
    ]
