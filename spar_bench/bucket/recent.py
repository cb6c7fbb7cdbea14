"""What a bucket last said, for a while: asking costs time and money."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

AGE_S = 2.0
_SHARE = 10

Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """The last answer of a function, which is asked again once that is old.

    An answer is good for `age_s`, or if it took long, for ten times as long.
    """

    def __init__(self, ask: Callable[[], Answer], age_s: float = AGE_S) -> None:
        self._ask, self.age_s = ask, age_s
        self._answer: Answer | None = None
        self._good_until = 0.0
        self._asking = threading.Lock()

    def get(self) -> Answer:
        """Return the last answer, or a new one."""
        with self._asking:  # else a slow answer to one thread would replace a later one
            begun = time.monotonic()
            answer = self._answer
            if answer is None or begun >= self._good_until:
                self._answer = answer = self._ask()
                ended = time.monotonic()
                good_s = max(self.age_s, _SHARE * (ended - begun))
                self._good_until = ended + (self.age_s and good_s)
            return answer

    def forget(self) -> None:
        """Ask again next time."""
        with self._asking:
            self._answer = None
