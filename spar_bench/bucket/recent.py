"""What a bucket last said, for a while: asking costs time and money."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

AGE_S = 2.0
"""Seconds for which an answer is good enough."""
_SHARE = 10
"""An answer that took long is good enough for so many times as long."""

Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """The last answer of a function, which is asked again once that is old."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._answer: Answer | None = None
        self._good_until = 0.0

    def get(self) -> Answer:
        """Return the last answer, or a new one."""
        if self._answer is None or time.monotonic() > self._good_until:
            begun = time.monotonic()
            self._answer = self._ask()
            took_s = time.monotonic() - begun
            self._good_until = begun + took_s + max(AGE_S, _SHARE * took_s)
        return self._answer

    def forget(self) -> None:
        """Ask again next time."""
        self._answer = None
