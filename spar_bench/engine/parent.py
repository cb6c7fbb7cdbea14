"""What a worker process hears from the one that started it; no torch.

It listens before anything else is imported, so that a worker whose parent is killed while it starts
ends as soon as any other.
"""

import json
import os
import threading
from queue import Queue
from typing import IO, Any

STOP = {"stop": True}
"""The message after which a worker stops where nothing is lost, in its own time."""
LAST_MOMENTS_S = 5.0
"""Seconds between the end of the messages and that of this process, whatever it is doing."""


class Parent:
    """The messages of the parent, read by a thread; when they end, so does this process."""

    def __init__(self, stream: IO[str]) -> None:
        self.has_ended = threading.Event()
        self._messages: Queue[dict[str, Any] | None] = Queue()
        threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    def hear(self) -> dict[str, Any] | None:
        """Wait for the next message; None if they have ended."""
        return self._messages.get()

    def _listen(self, stream: IO[str]) -> None:
        try:
            for line in stream:
                message = json.loads(line)
                if message == STOP:
                    self._end()
                else:
                    self._messages.put(message)
        finally:  # a parent that is killed may leave half a line
            self._end()
            threading.Timer(LAST_MOMENTS_S, os._exit, [1]).start()

    def _end(self) -> None:
        self._messages.put(None)
        self.has_ended.set()


def take_output() -> IO[str]:
    """Return standard output for events alone: whatever else is printed goes to standard error."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print what they like
    return out
