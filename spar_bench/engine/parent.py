"""What a worker process hears from the one that started it; no torch.

It listens before anything else is imported, so that a worker whose parent is killed while it starts
ends as soon as any other.
"""

import json
import os
import threading
from queue import Queue
from typing import IO, Any

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
        for line in stream:
            self._messages.put(json.loads(line))
        self._messages.put(None)
        self.has_ended.set()
        threading.Timer(LAST_MOMENTS_S, os._exit, [1]).start()
