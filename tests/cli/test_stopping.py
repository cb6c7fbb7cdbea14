"""Ctrl-C and SIGTERM: the first asks for a stop, handlers come back after."""

import os
import signal

import pytest

from spar_bench.cli.stopping import STOPPING, Stopper


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
