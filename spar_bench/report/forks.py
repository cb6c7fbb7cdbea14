"""Share work among forks of this process, which have in memory all that it has."""

import multiprocessing
import os
import traceback
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")


class Turns:
    """Numbers from 0 on, each taken by one process alone: of this one and its forks."""

    def __init__(self, n_forks: int) -> None:
        shared: Any = multiprocessing.Value("i", 0, lock=n_forks > 1)
        self._next = shared
        self._lock: AbstractContextManager[Any] = shared if n_forks > 1 else nullcontext()

    def take(self) -> int:
        """Return the next number."""
        with self._lock:
            taken: int = self._next.value
            self._next.value += 1
        return taken


def n_forks(most: int) -> int:
    """Return how many processes share work of `most` parts: one where processes cannot fork."""
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    return max(1, min(os.cpu_count() or 1, most)) if can_fork else 1


def in_forks(work: Callable[[int], T], n: int) -> list[T]:
    """Return what `work` returns for 0 to n - 1: for 0 here, for the others each in a fork.

    What a fork changes in memory is lost; what it returns, or raises, is pickled.

    Raises:
        Exception: the first that `work` raised; one from a fork has its traceback as a note.
    """
    arriving = [_begun(work, share) for share in range(1, n)]
    return [work(0), *map(_received, arriving)]


def _begun(work: Callable[[int], Any], share: int) -> Connection:
    """Fork, and return where the outcome will arrive."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    with warnings.catch_warnings():
        # The other threads are those of numpy, which are idle, and are not needed in the fork.
        warnings.filterwarnings("ignore", message=".*multi-threaded", category=DeprecationWarning)
        fork.Process(target=_run, args=(work, share, there), daemon=True).start()
    there.close()
    return here


def _run(work: Callable[[int], Any], share: int, there: Connection) -> None:
    try:
        there.send((work(share), None))
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        there.send((None, error))


def _received(here: Connection) -> Any:
    with here:
        outcome, error = here.recv()
    if error is not None:
        raise error
    return outcome
