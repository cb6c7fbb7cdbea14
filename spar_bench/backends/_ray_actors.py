"""What Ray runs on a node for a sweep: an actor that keeps a worker process there."""

import contextlib
import os
import platform
import queue
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spar_bench.backends.subprocesses import Process

HEAR_S = 10.0
"""Longest time that a call for a worker's lines waits for one."""
END_S = 5.0
GROUPS = {"tell": 1, "hear": 1}
"""Calls of an actor that do not wait for each other; those of one group keep their order."""


class Slot:
    """The actor: keeps a worker process on its node; runs there without torch."""

    def __init__(
        self, command: list[str], folder: str, place: Mapping[str, str], *, has_gpu: bool
    ) -> None:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder} must be seen by every node, but is not by this one")
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | dict(place)
        if not has_gpu:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        self._process = Process([sys.executable, *command], folder=folder, environment=environment)
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for line in self._process.lines():
                self._lines.put(line)
        finally:
            self._lines.put(None)

    def tell(self, line: str) -> None:
        """Write a line to the worker's input."""
        self._process.tell(line)

    def hear(self) -> list[str | None]:
        """Return the lines since the last call, at most after HEAR_S; None at the end."""
        found = list[str | None]()
        with contextlib.suppress(queue.Empty):
            found.append(self._lines.get(timeout=HEAR_S))
            while True:
                found.append(self._lines.get_nowait())
        return found

    def hang_up(self) -> None:
        """Close the worker's input, which ends it soon."""
        self._process.close()

    def ending(self) -> str:
        """Wait for the worker's end, and return how it ended."""
        self._process.has_ended(HEAR_S)
        return f"{self._process.ending} on {platform.node()}"


class Holder:
    """The actor that holds a node while something is timed there."""

    def hold(self) -> None:
        """Return once it is held."""


def reason(error: BaseException) -> str:
    """Return the last line of an error, which Ray begins with what it did itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


class Actor:
    """A worker behind a Ray actor; whatever ends the actor ends the worker, within seconds."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot
        self._ended = threading.Event()
        self._how = "its worker ended"

    def tell(self, line: str) -> None:
        """Write a line to its input."""
        self._call("tell", line)

    def _call(self, name: str, *given: str) -> None:
        """Call a method in the order of such calls, without waiting for it."""
        getattr(self._slot, name).options(concurrency_group="tell").remote(*given)

    def lines(self) -> Iterator[str]:
        """Yield the lines of its output, until it ends."""
        import ray

        try:
            while True:
                for line in ray.get(self._slot.hear.options(concurrency_group="hear").remote()):
                    if line is None:
                        self._how = ray.get(self._slot.ending.remote())
                        return
                    yield line
        except ray.exceptions.RayError as error:
            self._how = f"Ray lost its worker ({reason(error)})"
        finally:
            self._ended.set()

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for its end."""
        return self._ended.wait(timeout_s)

    def kill(self) -> None:
        """End it; the worker itself, whose input ends with the actor, within seconds."""
        import ray

        ray.kill(self._slot)
        self._ended.wait(END_S)

    def close(self) -> None:
        """Close its input, and give its resources back."""
        self._call("hang_up")
        if self._ended.is_set():
            self.kill()

    @property
    def ending(self) -> str:
        """How it ended."""
        return self._how
