"""Processes that are killed, stopped, or run at once: the results equal an undisturbed run's."""

import csv
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spar_bench.results import Results
from spar_bench.store import Store
from tests.small import HEAD, TINY, UNTIMED, runs, workers_on, write_spec

pytestmark = pytest.mark.slow

N_KILLS, N_AT_ONCE = int(os.environ.get("SPAR_BENCH_KILLS", "4")), 6
SWEEP = (
    HEAD.replace("count: 2, short_side_px: [64, 72]", "count: 8, short_side_px: [64, 128]")
    + """\
measure: {seconds: 0.05}
sweep:
  - grid: {teacher.stride_px: [64, 28, 16]}
    set: {evaluate.methods: [teacher]}
  - grid: {student.trainable: [last_1_blocks, all], student.learning_rate: [1.0e-3, 1.0e+30]}
    set: {evaluate.methods: [pretrained, student]}
"""
)
"""Seven trials, eleven rows, eight runs; two students diverge."""
N_ROWS, N_TRIALS, N_RUNS = 11, 7, 8
SEARCH = (
    UNTIMED
    + """\
sweep:
  - search:
      trials: 6
      objectives: {miou: maximize}
      prune: true
      space:
        student.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
        student.epochs: {low: 2, high: 6, integer: true}
"""
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment in which libraries are compiled once for all processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("PYTHONDONTWRITEBYTECODE", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    return environment | {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled"))}


class Command:
    """A command in its own process and folder."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        *arguments: str,
        said: Path | None = None,
    ) -> None:
        code = "from spar_bench.cli import main; main()"
        self._said = (said or folder) / f"said_{time.monotonic_ns()}"
        with self._said.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                cwd=folder,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self._said.read_text()

    def wait_until(self, words: str, n_times: int = 1) -> bool:
        """Wait until it has printed something this many times; False if it ended before."""
        while self.said.count(words) < n_times:
            if self.process.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    def ends(self) -> int:
        """Wait for its exit code."""
        return self.process.wait(timeout=300)


def folder_of(parent: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with a spec, and work in it."""
    folder = parent / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    write_spec(text)
    return folder


def told(folder: Path) -> list[tuple[str, str, str, str, float | None]]:
    """Return what no kill may change of the results, in their order."""
    rows = Results.load(folder / ".spar_bench/results/tiny").rows
    return [
        (row.trial, row.method, row.status, row.cost.cost_status, row.miou and round(row.miou, 6))
        for row in rows
    ]


def csv_of(folder: Path) -> list[dict[str, str]]:
    """Return results.csv without what varies between runs: times, memory, and other load."""
    with (folder / "reports/tiny/results.csv").open() as file:
        lines = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if not k.endswith(("_ms", "_mib", "_note"))} for row in lines
    ]


def assert_mirrored_once(folder: Path, n_runs: int) -> None:
    """Check that MLflow has one parent and this many runs, and that none is running."""
    found = runs(folder / "mlflow.db")
    names = [name for name, _ in found]
    assert len(names) == len(set(names)) == n_runs + 1, found
    assert {status for _, status in found} <= {"FINISHED", "FAILED", "KILLED"}


def kill_now_and_then(folder: Path, environment: dict[str, str], n_kills: int, seed: int) -> int:
    """Run a sweep, killed at random moments, then once more to its end; return its exit code."""
    moments = random.Random(seed)
    for _ in range(n_kills):
        command = Command(folder, environment, "sweep", "experiments/tiny.yaml")
        command.wait_until("made", moments.randint(0, 4))
        time.sleep(moments.random())
        command.process.kill()
        command.ends()
    return Command(folder, environment, "sweep", "experiments/tiny.yaml").ends()


def test_killed_sweep_ends_with_the_results_of_one_left_alone(
    tmp_path: Path, compiled: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = folder_of(tmp_path, "killed", SWEEP, monkeypatch)
    alone = folder_of(tmp_path, "alone", SWEEP, monkeypatch)

    codes = [
        kill_now_and_then(killed, compiled, N_KILLS, seed=0),
        Command(alone, compiled, "sweep", "experiments/tiny.yaml").ends(),
    ]
    reported = [Command(folder, compiled, "report").ends() for folder in (killed, alone)]

    assert (codes, reported) == ([1, 1], [0, 0])
    assert told(killed) == told(alone)
    assert len(told(alone)) == N_ROWS
    assert csv_of(killed) == csv_of(alone)
    for folder in (killed, alone):
        assert_mirrored_once(folder, N_RUNS)


@pytest.mark.parametrize("victims", [("worker",), ("parent",), ("worker", "parent")], ids="+".join)
def test_killed_workers_and_parents_leave_no_orphan_and_publish_nothing_twice(
    tmp_path: Path,
    compiled: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    victims: tuple[str, ...],
) -> None:
    killed = folder_of(tmp_path, "killed", SWEEP, monkeypatch)
    alone = folder_of(tmp_path, "alone", SWEEP, monkeypatch)
    store = str(killed / ".spar_bench")
    line = ["sweep", "experiments/tiny.yaml", "--jobs", "2", "--store", store]

    outputs, moments = list[str](), random.Random(2)
    while len(outputs) < N_KILLS:
        outputs.append(kill_at_a_moment(Command(killed, compiled, *line), victims, moments, store))
    last = Command(killed, compiled, *line)
    codes = [last.ends(), Command(alone, compiled, "sweep", "experiments/tiny.yaml").ends()]
    reported = [Command(folder, compiled, "report").ends() for folder in (killed, alone)]

    assert (codes, reported) == ([1, 1], [0, 0]), last.said
    assert told(killed) == told(alone)
    assert csv_of(killed) == csv_of(alone)
    made = re.findall(r"^made (\w+ \w+)", "\n".join([*outputs, last.said]), re.MULTILINE)
    assert len(made) == len(set(made)) > 0
    assert workers_on(store) == []


def kill_at_a_moment(
    command: Command, victims: tuple[str, ...], moments: random.Random, store: str
) -> str:
    """Kill a worker, the parent, or both at a random moment, then end what is left of the sweep.

    Returns what it printed. No worker may live for longer than ten seconds after its parent.
    """
    command.wait_until("made", moments.randint(0, 4))
    command.wait_until("started")
    time.sleep(3 * moments.random())
    workers = workers_on(store)
    if "worker" in victims and workers:
        os.kill(moments.choice(workers), signal.SIGKILL)
    if "parent" in victims:
        command.process.kill()
    else:
        command.wait_until("made", command.said.count("made") + 1)
        command.process.terminate()
    command.ends()
    deadline = time.monotonic() + 10
    while (left := workers_on(store)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    return command.said


def test_sweeps_at_once_on_one_fresh_store_share_all_work(
    tmp_path: Path, compiled: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, "at_once", SWEEP, monkeypatch)

    commands = [
        Command(folder, compiled, "sweep", "experiments/tiny.yaml") for _ in range(N_AT_ONCE)
    ]
    codes = [command.ends() for command in commands]

    assert codes == [1] * N_AT_ONCE, [command.said for command in commands]
    n_stages = len(list(Store(folder / ".spar_bench").finished()))
    made = sum(command.said.count("\nmade ") for command in commands)
    assert made == n_stages
    assert f"5 of {N_TRIALS} trials finished" in commands[0].said
    assert_mirrored_once(folder, N_RUNS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_a_sweep_cleanly_and_it_goes_on(
    tmp_path: Path,
    compiled: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    folder = folder_of(tmp_path, "stopped", SWEEP, monkeypatch)
    command = Command(folder, compiled, "sweep", "experiments/tiny.yaml")

    command.wait_until("made", 7)  # the teachers' trials have ended and are shown
    command.process.send_signal(number)
    code = command.ends()
    stopped = {status for _, status in runs(folder / "mlflow.db")}
    resumed = Command(folder, compiled, "sweep", "experiments/tiny.yaml")

    assert code == 130
    assert command.said.splitlines()[-1].startswith("Stopped. Finished work is kept")
    assert "Traceback" not in command.said
    assert "KILLED" in stopped
    assert "RUNNING" not in stopped
    assert resumed.ends() == 1
    assert f"5 of {N_TRIALS} trials finished" in resumed.said


def test_second_signal_ends_at_once(
    tmp_path: Path, compiled: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, "ended", SWEEP, monkeypatch)
    command = Command(folder, compiled, "sweep", "experiments/tiny.yaml")

    command.wait_until("started")
    command.process.send_signal(signal.SIGINT)
    command.process.send_signal(signal.SIGINT)

    assert command.ends() in (-signal.SIGINT, 130)


def test_killed_search_asks_for_no_point_twice_and_ends_as_one_left_alone(
    tmp_path: Path, compiled: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = folder_of(tmp_path, "killed", SEARCH, monkeypatch)
    alone = folder_of(tmp_path, "alone", SEARCH, monkeypatch)

    codes = [
        kill_now_and_then(killed, compiled, 3, seed=1),
        Command(alone, compiled, "sweep", "experiments/tiny.yaml").ends(),
    ]

    assert codes == [0, 0]
    assert told(killed) == told(alone)
    assert len(told(alone)) == 3 * 6
    assert_mirrored_once(killed, 8)


def test_two_searches_at_once_share_one_study(
    tmp_path: Path, compiled: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, "two", SEARCH, monkeypatch)

    commands = [Command(folder, compiled, "sweep", "experiments/tiny.yaml") for _ in range(2)]
    codes = [command.ends() for command in commands]

    assert codes == [0, 0], [command.said for command in commands]
    n_tried = [len(re.findall(r"^trial \d", command.said, re.MULTILINE)) for command in commands]
    assert sorted(n_tried) == [0, 6]
    assert "another sweep runs this search; waiting for it" in "".join(c.said for c in commands)
    assert_mirrored_once(folder, 8)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount")
def test_sweep_on_a_disk_that_is_full_is_one_line_and_goes_on_when_there_is_room(
    tmp_path: Path, compiled: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this root may not mount")
    ends = []
    try:
        monkeypatch.chdir(folder)
        write_spec(TINY)
        for n_mib in (1, 3, 4, 5, 6, 60):
            size = f"remount,size={n_mib}m"
            subprocess.run(["mount", "-o", size, str(folder)], check=True)
            command = Command(folder, compiled, "sweep", "experiments/tiny.yaml", said=tmp_path)
            ends.append((command.ends(), command.said))
        found = told(folder)
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", str(folder)], check=True)

    assert [code for code, _ in ends] == [2] * 5 + [0]
    for _, said in ends[:-1]:
        assert "Traceback" not in said
        assert re.search("disk is full|No space left", said.splitlines()[-1])
    assert [row[2] for row in found] == ["finished"] * 4


def test_starter_runs_through_to_its_report(
    tmp_path: Path, compiled: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Command(tmp_path, compiled, "init", "whole.yaml").ends()
    small = Path("whole.yaml").read_text()
    for many, few in (("count: 40", "count: 2"), ("count: 16", "count: 2"), ("[own] ", "[128] ")):
        assert many in small
        small = small.replace(many, few)
    write_spec(small.replace("seconds: 1.0", "seconds: 0.05"), "first")
    lines = [["sweep", "experiments/first.yaml"], ["report", "experiments/first.yaml"]]

    codes = [Command(tmp_path, compiled, *line).ends() for line in lines]

    assert codes == [0, 0]
    assert (tmp_path / "reports/first/results.csv").exists()
