"""A worker as the sweep's process reaches it: one process, or several that train together."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

FOLLOW_S = 5.0
"""Seconds after the end of one of several processes in which the others end by themselves."""


class Link(Protocol):
    """A worker process, here or elsewhere, as this process reaches it."""

    def tell(self, line: str) -> None:
        """Write a line to its input; nothing happens if it has ended."""
        ...

    def lines(self) -> Iterator[str]:
        """Yield the lines of its output, until it ends."""
        ...

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for its end, for at most that long; return whether it has ended."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def close(self) -> None:
        """Close its input, which ends it soon if it still runs."""
        ...

    @property
    def ending(self) -> str:
        """How it ended, as in `its worker ended with code 1`."""
        ...


class Together:
    """Processes of which the first is the worker, and the others train along; all end as one.

    `release` is called once they are closed.
    """

    def __init__(self, links: Sequence[Link], release: Callable[[], None] = lambda: None) -> None:
        self._first, *self._others = links
        self._release = release
        self._ending = ""
        for other in self._others:
            threading.Thread(target=self._watch, args=(other,), daemon=True).start()

    def _watch(self, other: Link) -> None:
        """Read what a process prints, which is nothing, until it ends; none outlives another.

        The first notices by itself, unless it waits for that one's gradients.
        """
        for _ in other.lines():
            pass
        if not self._first.has_ended(FOLLOW_S):
            other.has_ended(FOLLOW_S)
            self._ending = f"{other.ending}, which trained along"
            self._first.kill()

    def tell(self, line: str) -> None:
        """Write a line to the first one's input."""
        self._first.tell(line)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the first one's output, until it ends."""
        return self._first.lines()

    def has_ended(self, timeout_s: float) -> bool:
        """Wait for the first one's end; the others follow it, or are killed."""
        if not self._first.has_ended(timeout_s):
            return False
        for other in self._others:
            if not other.has_ended(FOLLOW_S):
                other.kill()
        return True

    def kill(self) -> None:
        """End all at once."""
        for link in (self._first, *self._others):
            link.kill()

    def close(self) -> None:
        """Close all inputs."""
        for link in (self._first, *self._others):
            link.close()
        self._release()

    @property
    def ending(self) -> str:
        """How the first ended, or another that ended before it."""
        return self._ending or self._first.ending
