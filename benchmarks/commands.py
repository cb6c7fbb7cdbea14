"""Everyday commands, in units of `python -c "import torch"`; and the README's first command."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, in_turns
from benchmarks.reading import roof_gflops
from spar_bench.session.planning import plan_sweep

_ROOT = Path(__file__).parents[1]
_SPEC = """\
question: Does it run?
backbone: patchwork
images: {source: patchwork, count: 4, short_side_px: [96, 128]}
teacher: {window_px: 64, stride_px: 28}
student: {learning_rate: 1.0e-3, epochs: 1}
evaluate: {datasets: [{name: patchwork, count: 4}], short_side_px: [128]}
measure: {seconds: 0.2}
sweep: [{grid: {student.trainable: [last_1_blocks, last_2_blocks]}}]
"""


def commands() -> Iterator[Figure]:
    """Measure on a small finished sweep, with compiled bytecode."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "experiments").mkdir()
        (here / "experiments" / "small.yaml").write_text(_SPEC, encoding="utf-8")
        for _ in range(2):  # the second notes that everything is shown
            _run(here, "sweep", "small")
        _run(here, "report", "small")
        asked = {
            "--help": (["--help"], 0.05),
            "check": (["check", "small"], 0.25),
            "plan": (["plan", "small"], 0.25),
            "status": (["status", "small"], 0.25),
            "a finished sweep again": (["sweep", "small"], 0.5),
            "report, unchanged": (["report", "small"], 0.3),
        }
        ways = {
            name: (lambda arguments=arguments: _run(here, *arguments))
            for name, (arguments, _) in asked.items()
        }
        seconds = in_turns({"torch": _import_torch, **ways}, rounds=3)
        for name, (arguments, bar) in asked.items():
            yield Figure(
                name=name,
                value=seconds[name] / seconds["torch"],
                bar=bar,
                how=f"spar-bench {' '.join(arguments)}, over `import torch`",
            )

        def anew() -> None:
            (here / "reports" / "small" / "manifest.json").unlink()
            _run(here, "report", "small")

        seconds = in_turns({"torch": _import_torch, "report": anew}, rounds=2)
        yield Figure(
            name="report, from scratch",
            value=seconds["report"] / seconds["torch"],
            bar=1.5,
            how="spar-bench report small, over `import torch`",
        )


def first_run() -> Iterator[Figure]:
    """Measure the README's first command, without the installation: sweep and report."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "experiments").symlink_to(_ROOT / "experiments")
        before = os.getcwd()
        os.chdir(here)
        try:
            view = plan_sweep("experiments/stride.yaml")
        finally:
            os.chdir(before)
        roof, began = roof_gflops(), time.monotonic()
        _run(here, "sweep", "experiments/stride.yaml")
        swept = time.monotonic() - began
        _run(here, "report", "stride")
        seconds = time.monotonic() - began
    roof = (roof + roof_gflops()) / 2
    yield Figure(
        name="README's first command",
        value=seconds * roof / view.gflops,
        bar=1.5,
        how=f"{seconds:.0f} s x a roof of {roof:.0f} GFLOP/s, over {view.gflops:,.0f} GFLOP",
    )
    yield Figure(
        name="plan of a first run, over the real time",
        value=max(view.seconds / swept, swept / view.seconds),
        bar=1.5,
        how=f"{view.seconds:.0f} s were planned, {swept:.0f} s taken",
    )


def _import_torch() -> None:
    subprocess.run([sys.executable, "-c", "import torch"], check=True)


def _run(here: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "spar_bench", *arguments]
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    told = subprocess.run(
        command,
        cwd=here,
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if told.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {told.stderr[-500:]}")
    return told.stdout
