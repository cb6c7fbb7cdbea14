"""What a store knows of stages that failed: why, where, and what their makers said meanwhile."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from spar_bench.errors import StoreError
from spar_bench.files import read_json, reading, replace_text

LOG_LINES = 20
"""Lines at the end of a log that are shown."""
_LOG_BYTES = 64 << 10


@dataclass(frozen=True)
class Failure:
    """Why the last attempt at a stage failed, and on which device; if `final`, it would again."""

    reason: str
    outcome: Literal["failed", "pruned"]
    final: bool
    at_ms: int
    where: str = ""


class Failures:
    """The records and logs under one folder, by fingerprint; a stage that is finished has none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, fingerprint: str) -> Failure | None:
        """Return why a stage's last attempt failed, or None.

        Raises:
            StoreError: there is a record, but it cannot be read: if it was taken for none, a
                student that diverged would be trained again.
        """
        path = self._path(fingerprint)
        with reading(path):
            if not path.exists():
                return None
        try:
            return Failure(**read_json(path))
        except TypeError as error:
            raise StoreError(
                f"{path}: must be the record of a failure, but has other keys; delete it, and the "
                "stage is tried again"
            ) from error

    def write(
        self,
        fingerprint: str,
        reason: str,
        *,
        outcome: Literal["failed", "pruned"],
        final: bool,
        where: str = "",
    ) -> None:
        """Record a failure of this moment."""
        failure = Failure(reason, outcome, final, time.time_ns() // 1_000_000, where)
        replace_text(self._path(fingerprint), json.dumps(asdict(failure), allow_nan=False))

    def forget(self, fingerprint: str) -> None:
        """Delete a stage's record and log."""
        self._path(fingerprint).unlink(missing_ok=True)
        self.log(fingerprint).unlink(missing_ok=True)

    def log(self, fingerprint: str) -> Path:
        """Return the file of what makers of a stage have said; missing if they said nothing."""
        return self.folder / f"{fingerprint}.log"

    def said(self, fingerprint: str) -> list[str]:
        """Return the last lines of a stage's log."""
        try:
            with self.log(fingerprint).open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - _LOG_BYTES, 0))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return text.splitlines()[-LOG_LINES:]

    @contextmanager
    def logging(self, fingerprint: str, where: str) -> Iterator[None]:
        """Append this package's log, and what `where` this is, to a stage's while a block runs.

        If nothing of it has failed then, the log is deleted.
        """
        handler = _Log(self.log(fingerprint), where)
        logger = logging.getLogger("spar_bench")
        logger.addHandler(handler)
        try:
            yield
            if not self._path(fingerprint).exists():
                self.log(fingerprint).unlink(missing_ok=True)
        finally:
            logger.removeHandler(handler)

    def say(self, fingerprint: str, where: str, text: str) -> None:
        """Append a text to a stage's log; a full disk costs the log."""
        record = logging.LogRecord("spar_bench", logging.ERROR, "", 0, text, None, None)
        _Log(self.log(fingerprint), where).emit(record)

    def _path(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.json"


class _Log(logging.Handler):
    """Appends to a file that is there only once something is said; a full disk costs the log."""

    def __init__(self, path: Path, where: str) -> None:
        super().__init__()
        self._path = path
        self.setFormatter(logging.Formatter(f"%(asctime)s {where}: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record."""
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(self.format(record) + "\n")
