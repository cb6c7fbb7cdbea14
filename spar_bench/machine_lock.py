"""Who may work on this machine now: many that make stages, or one that times.

Work holds a lock that is shared; timing holds it alone. Whoever asks takes his turn first, so that
timing is not put off for ever by work that begins meanwhile. The system releases what a process
held when it ends, however it ends. Processes with different temporary folders do not see each
other.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from spar_bench.files import writing

POLL_S = 0.5
_MACHINE, _TURN = "spar-bench-machine.lock", "spar-bench-turn.lock"


@contextmanager
def machine_lock(
    *, alone: bool, on_wait: Callable[[], None], poll: Callable[[], None]
) -> Iterator[None]:
    """Hold this machine while a block runs, shared with other work or alone.

    `on_wait` is called once if it is not free; `poll` at least twice a second while waiting, and
    may raise. Not to be entered again by the thread that holds it.

    Raises:
        StoreError: the temporary folder cannot hold locks.
    """
    kind, folder, tell = fcntl.LOCK_EX if alone else fcntl.LOCK_SH, Path(gettempdir()), [on_wait]

    def wait() -> None:
        while tell:
            tell.pop()()
        poll()
        time.sleep(POLL_S)

    with _opened(folder / _MACHINE) as machine:
        with _opened(folder / _TURN) as turn, writing(folder):
            _take(turn, kind, wait)
            _take(machine, kind, wait)
        yield


def _take(file: int, kind: int, wait: Callable[[], None]) -> None:
    """Lock a file, which lasts until it is closed."""
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            wait()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file that any user may lock; made if it is missing."""
    with writing(path.parent):
        file = _open(path)
    try:
        yield file
    finally:
        os.close(file)


def _open(path: Path) -> int:
    # Not opened to create it if it is there: Linux forbids that with another user's file.
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            pass
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except FileExistsError:
            continue
        os.fchmod(file, 0o644)
        return file
