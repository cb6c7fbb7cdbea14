"""SHA-256 of files, cached between runs so that a large folder is read once.

The cache is one SQLite file in the user's cache folder. A file is recognised by its path, size and
times of change; if the cache cannot be used, files are simply read again. What this tool itself
wrote is checked by `files.file_sha256`, which caches nothing.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from spar_bench.files import cache_folder, file_sha256

log = logging.getLogger(__name__)

_TABLE = """CREATE TABLE IF NOT EXISTS digest
(path TEXT PRIMARY KEY, size INTEGER, modified_ns INTEGER, changed_ns INTEGER, sha256 TEXT)"""
_TIMEOUT_S = 10.0  # another process writes for milliseconds
_TICK_NS = 2_000_000_000  # the coarsest clock of a file system in use
_UNUSABLE = (OSError, RuntimeError, sqlite3.Error)  # RuntimeError: there is no home folder

Stamp = tuple[str, int, int, int]


def remembered_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's contents, in hex.

    Raises:
        OSError: the file cannot be read.
    """
    return remembered_sha256s([path])[0]


def remembered_sha256s(paths: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each file's contents, in hex, in the order given.

    Raises:
        OSError: a file cannot be read.
    """
    stamps = [_stamp(path) for path in paths]
    known = _recall(stamps)
    fresh: dict[Stamp, str] = {}
    for path, stamp in zip(paths, stamps, strict=True):
        if stamp in known or stamp in fresh:
            continue
        fresh[stamp] = file_sha256(path)
    settled = {stamp: digest for stamp, digest in fresh.items() if _is_settled(stamp)}
    if settled:
        _remember(settled)
    digests = known | fresh
    return [digests[stamp] for stamp in stamps]


def _stamp(path: Path) -> Stamp:
    """Return what identifies a file's state; the time of change catches a restored time stamp."""
    stat = path.stat()
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _is_settled(stamp: Stamp) -> bool:
    """Say whether another change of the file would show in its stamp.

    Not if it changed while it was read, nor if it changed so recently that the next change may have
    the same time.
    """
    return _stamp(Path(stamp[0])) == stamp and time.time_ns() - stamp[3] > _TICK_NS


def _recall(stamps: list[Stamp]) -> dict[Stamp, str]:
    """Return the cached digests of files that have not changed since."""
    query = "SELECT size, modified_ns, changed_ns, sha256 FROM digest WHERE path = ?"
    found: dict[Stamp, str] = {}
    try:
        with closing(_memory()) as connection:
            for stamp in set(stamps):
                row = connection.execute(query, stamp[:1]).fetchone()
                if row is not None and (stamp[0], *row[:3]) == stamp:
                    found[stamp] = row[3]
    except _UNUSABLE as error:  # nothing is lost: missing digests are computed
        log.info("digests are not read from the cache: %s", error)
    return found


def _remember(fresh: dict[Stamp, str]) -> None:
    rows = [(*stamp, digest) for stamp, digest in fresh.items()]
    try:
        with closing(_memory()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO digest VALUES (?, ?, ?, ?, ?)", rows)
    except _UNUSABLE as error:
        log.info("digests are not cached: %s", error)


def _memory() -> sqlite3.Connection:
    connection = sqlite3.connect(cache_folder() / "digests.sqlite3", timeout=_TIMEOUT_S)
    connection.execute(_TABLE)
    return connection
