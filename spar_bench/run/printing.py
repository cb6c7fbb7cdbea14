"""What a worker process and its children print, kept in a file while a stage is made."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def printing_to(path: Path) -> Iterator[None]:
    """Append what this process and its children write to standard error to a file meanwhile."""
    before = os.dup(2)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:  # what is made will fail with a better message
        yield
        return
    try:
        os.dup2(file, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(file)
        os.close(before)
        with suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()
