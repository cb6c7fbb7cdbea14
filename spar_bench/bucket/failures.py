"""Failures that all machines know which share a bucket."""

from contextlib import suppress
from pathlib import Path
from typing import Literal

from spar_bench.bucket.objects import Bucket
from spar_bench.bucket.recent import Recent
from spar_bench.failures import Failure, Failures
from spar_bench.files import replace_bytes


class BucketFailures(Failures):
    """The records and logs of a folder, each also in the bucket."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        super().__init__(folder)
        self._bucket = bucket
        self._there = Recent(lambda: bucket.versions("failures"))
        self._read: dict[str, str] = {}

    def read(self, fingerprint: str) -> Failure | None:
        """Return why a stage's last attempt failed, on whatever machine, or None."""
        path, log = self._path(fingerprint), self.log(fingerprint)
        version = self._there.get().get(path.name)
        if version is None:  # what is here alone was made elsewhere since
            return None
        if self._read.get(path.name) != version:
            with suppress(FileNotFoundError):  # it was made meanwhile
                replace_bytes(path, self._bucket.read(f"failures/{path.name}"))
                self._read[path.name] = version
        if log.name in self._there.get() and not log.exists():
            with suppress(FileNotFoundError):
                replace_bytes(log, self._bucket.read(f"failures/{log.name}"))
        return super().read(fingerprint)

    def write(
        self,
        fingerprint: str,
        reason: str,
        *,
        outcome: Literal["failed", "pruned"],
        final: bool,
        where: str = "",
    ) -> None:
        """Record a failure of this moment, with the log as it is."""
        super().write(fingerprint, reason, outcome=outcome, final=final, where=where)
        for path in (self.log(fingerprint), self._path(fingerprint)):
            if path.exists():
                self._bucket.replace(f"failures/{path.name}", path.read_bytes())
        self._there.forget()

    def forget(self, fingerprint: str) -> None:
        """Delete a stage's record and log, here and there."""
        super().forget(fingerprint)
        for path in (self._path(fingerprint), self.log(fingerprint)):
            if self._there.get().pop(path.name, None) is not None:
                self._bucket.delete(f"failures/{path.name}")
