"""Ctrl-C and SIGTERM: the first asks for a stop; handlers are restored afterwards."""

import os
import signal
import subprocess
import sys

import pytest

from spar_bench.cli.stopping import INTERRUPTED, STOPPING, Stopper


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_for_a_stop_and_says_so(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    stopper, before = Stopper(), signal.getsignal(number)

    with stopper.listening():
        os.kill(os.getpid(), number)

    assert stopper.event.is_set()
    assert capfd.readouterr().err == f"{STOPPING}\n"
    assert signal.getsignal(number) == before


def test_signal_is_not_said_twice_where_a_table_shows_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    stopper = Stopper()
    stopper.is_shown = True

    with stopper.listening():
        os.kill(os.getpid(), signal.SIGINT)

    assert stopper.event.is_set()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_ends_at_once_while_the_main_thread_is_in_one_long_operation(
    number: signal.Signals,
) -> None:
    # A mutex locked twice blocks forever and ignores signals, like an operation of torch.
    code = """
import ctypes
from spar_bench.cli.stopping import Stopper
with Stopper().listening():
    mutex = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    print("begun", flush=True)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"

        process.send_signal(number)
        said = process.stderr.readline()
        process.send_signal(number)

        assert (said, process.wait(timeout=60)) == (f"{STOPPING}\n", INTERRUPTED)
