"""What Ctrl-C and SIGTERM do: once, stop where nothing is lost; twice, exit immediately."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from spar_bench.errors import Interrupted

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended."""
STOPPING = "Stopping once current writes finish; Ctrl-C again exits immediately."
FOLLOWER_GRACE_S = 25.0
"""`torchrun` kills processes that are still running 30 seconds after it asked them to end."""
_SHOW_CURSOR = b"\x1b[?25h"
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Stopper:
    """Set when the user asks to stop; `is_shown`: a live table says so, otherwise a line does."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.is_shown = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle Ctrl-C and SIGTERM until the end of the block."""
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        # Python runs handlers between its own steps, not within an operation of torch that may take
        # minutes; the number is written to the pipe at once, and another thread reads it.
        listener = threading.Thread(target=self._listen, args=(read_end,), daemon=True)
        listener.start()
        handlers = {number: signal.signal(number, _let_be) for number in _NUMBERS}
        pipe = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(pipe)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(write_end)
            listener.join()
            os.close(read_end)

    def _listen(self, read_end: int) -> None:
        while number := os.read(read_end, 1):
            if number[0] in _NUMBERS:
                self._ask()

    def _ask(self) -> None:
        # Bypass Python's buffers: the main thread may be writing to them.
        if self.event.is_set():
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR)
            os._exit(INTERRUPTED)  # unfinished work is in scratch, where it survives a kill
        self.event.set()
        if not self.is_shown:
            os.write(2, f"{STOPPING}\n".encode())


@contextmanager
def interruptible() -> Iterator[Stopper]:
    """Run a block that Ctrl-C or SIGTERM ends where nothing is lost: a line, and exit code 130."""
    stopper = Stopper()
    with stopper.listening():
        try:
            yield stopper
        except Interrupted:
            click.echo("Stopped. Finished work is kept; run the same command to resume.", err=True)
            raise SystemExit(INTERRUPTED) from None


class Follower:
    """Leaves Ctrl-C and SIGTERM to the process that this one trains with, and ends with it.

    Once it has `joined`, it waits for that process to end it, for as long as `torchrun` would.
    """

    def __init__(self) -> None:
        self.joined = threading.Event()
        # Blocked in this thread and all that it starts, received by a thread of our own: a handler
        # would not run while torch waits for the other process.
        signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        signal.sigwait(_NUMBERS)
        if self.joined.is_set():
            time.sleep(FOLLOWER_GRACE_S)
        os._exit(INTERRUPTED)


def _let_be(*_: object) -> None:
    """Replace Python's own handler: the thread has received the signal."""
