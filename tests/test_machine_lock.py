"""Work shares this machine, timing has it alone: with real processes."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spar_bench.errors import StoreError
from spar_bench.machine_lock import machine_lock

HOLD = """
import sys
from spar_bench.machine_lock import machine_lock
with machine_lock(alone=sys.argv[1] == "alone", on_wait=lambda: None, poll=lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine for each test."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start processes that hold the machine, `shared` or `alone`, until their input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(how: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, how]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def holds(process: "subprocess.Popen[str]") -> bool:
    """Wait until a process says that it holds the machine."""
    assert process.stdout is not None
    return process.stdout.readline() == "held\n"


class Stop(Exception):
    """The user stops what waits."""


def waits(*, alone: bool, polls: int = 2) -> int:
    """Try to hold the machine, and stop after some polls; return how often waiting was announced.

    Raises:
        AssertionError: the machine was free.
    """
    n_told, n_polls = 0, 0

    def tell() -> None:
        nonlocal n_told
        n_told += 1

    def poll() -> None:
        nonlocal n_polls
        n_polls += 1
        if n_polls == polls:
            raise Stop

    with pytest.raises(Stop), machine_lock(alone=alone, on_wait=tell, poll=poll):
        raise AssertionError("the machine was free")
    return n_told


def is_free(*, alone: bool) -> bool:
    """Return whether the machine can be held without waiting."""
    told = list[bool]()
    try:
        with machine_lock(alone=alone, on_wait=lambda: told.append(True), poll=stop):
            return not told
    except Stop:
        return False


def stop() -> None:
    raise Stop


def test_work_of_two_processes_shares_the_machine(start: Start) -> None:
    assert holds(start("shared"))
    assert holds(start("shared"))
    assert is_free(alone=False)


@pytest.mark.parametrize(("held", "asked"), [("shared", "alone"), ("alone", "shared"),
                                             ("alone", "alone")])  # fmt: skip
def test_timing_and_work_exclude_each_other_until_the_other_ends(
    start: Start, held: str, asked: str
) -> None:
    other = start(held)
    assert holds(other)

    assert waits(alone=asked == "alone", polls=3) == 1  # announced once, and interrupted

    other.communicate()
    assert is_free(alone=True)


def test_killed_process_releases_the_machine(start: Start) -> None:
    timing = start("alone")
    assert holds(timing)
    assert not is_free(alone=False)

    timing.kill()
    timing.wait()

    assert is_free(alone=True)


def test_work_that_begins_later_lets_a_waiting_timing_go_first(start: Start) -> None:
    work = start("shared")
    assert holds(work)
    waiting, held, done = threading.Event(), threading.Event(), threading.Event()

    def time_something() -> None:
        with machine_lock(alone=True, on_wait=waiting.set, poll=lambda: None):
            held.set()
            done.wait(60)

    timing = threading.Thread(target=time_something)
    timing.start()
    assert waiting.wait(60)

    assert not is_free(alone=False)  # though work alone holds the machine

    work.communicate()
    assert held.wait(60)
    done.set()
    timing.join()
    assert is_free(alone=False)


def test_failure_releases_the_machine() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        machine_lock(alone=True, on_wait=stop, poll=stop),
    ):
        raise ZeroDivisionError

    assert is_free(alone=True)


def test_temporary_folder_without_files_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(tempfile, "tempdir", str(file))

    with (
        pytest.raises(StoreError, match=f"^{file}: must .*"),
        machine_lock(alone=True, on_wait=stop, poll=stop),
    ):
        pass
