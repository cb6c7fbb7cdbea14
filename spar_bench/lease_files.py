"""A lease as a file: how it is looked at, renewed by a thread of this process, and deleted.

`leases.py` says what it guarantees.
"""

import fcntl
import json
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

from spar_bench.errors import StoreError

RENEWALS = 6
"""How often a lease is renewed while it lasts."""


@dataclass(eq=False, kw_only=True)
class Renewed(ABC):
    """A lease that this process took; `is_lost` once a renewal found another in its place."""

    length_s: float
    is_lost: bool = False
    _renewed_at: float = field(default_factory=time.monotonic)
    _is_over: bool = False
    _using: threading.Lock = field(default_factory=threading.Lock)

    @abstractmethod
    def is_own(self) -> bool:
        """Return whether it is still the one that was created, as far as can be seen now."""

    @abstractmethod
    def _touch(self) -> None:
        """Show the others that the owner is alive; may raise an error of the place."""

    @abstractmethod
    def _delete(self) -> None:
        """Delete it if it is still this process's."""

    @property
    def is_due(self) -> bool:
        """Whether it is time to renew it."""
        return time.monotonic() - self._renewed_at >= self.length_s / RENEWALS / 2

    def renew(self) -> None:
        """Show the others that the owner is alive; after an error the next renewal tries again."""
        with self._using, suppress(OSError, StoreError):
            if not self._is_over:
                self.is_lost = not self.is_own()
                self._touch()
                self._renewed_at = time.monotonic()

    def end(self) -> None:
        """Delete it, and renew it no more."""
        with self._using:
            self._is_over = True
            self._delete()


@dataclass(eq=False)
class Lease(Renewed):
    """A lease that is a file."""

    path: Path
    content: bytes
    file: int

    def is_own(self) -> bool:
        """Return whether the file is still the one that was created."""
        seen = look(self.path)
        return seen is not None and seen.content == self.content

    def give_back(self) -> None:
        """Stop renewing it, and delete it if it is still this process's."""
        if _renewer.remove(self):
            self.end()

    def _touch(self) -> None:
        os.utime(self.file)

    def _delete(self) -> None:
        with suppress(OSError):
            if self.is_own():
                remove(self.path, lambda seen: seen.content == self.content)
        os.close(self.file)


@dataclass(frozen=True)
class Seen:
    """A lease's file as it was found: equal as long as nobody renewed or replaced it."""

    content: bytes
    changed_ns: int
    is_unlocked: bool = field(compare=False)

    @property
    def owner(self) -> dict[str, Any]:
        """Who holds the lease; empty in the instant between its creation and its first write."""
        with suppress(ValueError):
            owner = json.loads(self.content)
            return owner if isinstance(owner, dict) else {}
        return {}


def look(path: Path) -> Seen | None:
    """Return a lease's file, or None if there is none; opened, since NFS caches what stat sees."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        content, changed_ns = os.read(file, 4096), os.fstat(file).st_mtime_ns
        is_unlocked = lock(file, fcntl.LOCK_SH)
    finally:
        os.close(file)  # and with it the lock
    return Seen(content, changed_ns, is_unlocked)


def lock(file: int, kind: int) -> bool:
    """Try to lock an open file; return whether it worked."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def keep(lease: Lease) -> None:
    """Renew a lease until it is given back."""
    _renewer.add(lease)


def remove(path: Path, is_meant: Callable[[Seen], bool]) -> None:
    """Delete the lease that is meant; one that has taken its place is put back."""
    # No file system deletes a name only if it still stands for a given file. So it is renamed to a
    # name of our own first, looked at, and put back by a link, which replaces nothing.
    aside = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    found = look(aside)
    if found is not None and not is_meant(found):
        with suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


OfOneKind = TypeVar("OfOneKind", bound=Renewed)


class Renewer(Generic[OfOneKind]):
    """A thread that renews leases of this process."""

    def __init__(self) -> None:
        self.leases = set[OfOneKind]()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, lease: OfOneKind) -> None:
        with self._changed:
            self.leases.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()
            self._changed.notify()

    def remove(self, lease: OfOneKind) -> bool:
        """Stop renewing a lease; return whether it was being renewed, which a child's is not."""
        with self._changed:
            is_known = lease in self.leases
            self.leases.discard(lease)
            return is_known

    def _run(self) -> None:
        while True:
            with self._changed:
                due = [lease for lease in self.leases if lease.is_due]
            for lease in due:  # meanwhile others may be added and removed
                lease.renew()
            with self._changed:
                every_s = min((lease.length_s for lease in self.leases), default=None)
                self._changed.wait(every_s and every_s / RENEWALS)


_renewer = Renewer[Lease]()


def _forget_parents_leases() -> None:
    """Close them in a forked child, so that their locks end with the parent."""
    global _renewer
    for lease in _renewer.leases:
        os.close(lease.file)
        lease.is_lost = True
    _renewer = Renewer()  # the thread stayed in the parent


os.register_at_fork(after_in_child=_forget_parents_leases)
