"""What Ctrl-C and SIGTERM do: once, stop where nothing is lost; twice, end at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended."""
STOPPING = "Stopping after what is being written; once more ends at once."
_SHOW_CURSOR = b"\x1b[?25h"


class Stopper:
    """Set when the user asks to stop; `is_shown`: a live table says so, else a line is written."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.is_shown = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM until the end of the block."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._ask) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        # Past Python's buffers: this may interrupt a write to them, not to be entered again.
        if self.event.is_set():
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR)
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.event.set()
        if not self.is_shown:
            os.write(2, f"{STOPPING}\n".encode())
