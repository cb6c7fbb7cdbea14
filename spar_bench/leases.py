"""Leases: files that say who works on what, on any number of hosts that share a folder.

A lease is a file that was created exclusively, holds its owner as JSON, and is touched by its owner
every sixth of its length. Whoever wants it watches the file: unchanged for the lease's whole length
on the watcher's own clock, the owner counts as dead and the lease is taken over. Clocks of hosts
are never compared. An owner that is dead on the same kernel is recognised at once.

Guaranteed, wherever exclusive creation and renaming are atomic (local disks, NFS, Lustre, GPFS):

- A lease that its owner renews is held by that owner alone, and a dead one is waited for no longer
  than its length and one poll.
- An owner that was paused for longer, and has been replaced, finds out when it asks (`require`),
  so that it publishes nothing in another's name.

Given up: an owner may be replaced between `require` and what it does next, and two that take over
one dead lease in the same instant may both hold it until the first of them asks. Work may then be
done twice, so what it publishes must be published by a rename that only one can win.
"""

import fcntl
import json
import os
import platform
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from spar_bench.errors import LeaseLost
from spar_bench.files import reading, writing
from spar_bench.lease_files import RENEWALS, Lease, Seen, keep, lock, look, remove

LEASE_S = 60.0
POLL_S = 0.5
"""Longest time between two looks at a lease that is waited for."""


def _boot_id() -> str:
    """Return what identifies the running kernel, or "" where it has no name."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


@dataclass(frozen=True)
class Host:
    """The computer that a process runs on: its name, and the kernel it has booted."""

    name: str = field(default_factory=platform.node)
    boot_id: str = field(default_factory=_boot_id)


class Held(Protocol):
    """A lease that this process took; `is_lost` once it was found to be another's."""

    @property
    def is_lost(self) -> bool:
        """Whether a renewal found it to be another's."""
        ...

    def is_own(self) -> bool:
        """Return whether it is still this process's, as far as can be seen now."""
        ...

    def give_back(self) -> None:
        """Let others take it."""
        ...


class Leases:
    """The leases under one folder, as one owner takes them.

    `owner` is a name that no other owner has; `length_s` is how long its leases last without being
    renewed. `host` is given by tests that play several hosts.
    """

    def __init__(self, folder: Path, length_s: float = LEASE_S, host: Host | None = None) -> None:
        self._folder, self._length_s, self._host = folder, length_s, host or Host()
        name = "".join(c if c.isalnum() and c.isascii() else "-" for c in self._host.name)
        self.owner = f"{name[:64]}-{os.getpid()}-{uuid4().hex[:8]}"
        self._held: dict[str, Held] = {}
        self._watched: dict[str, tuple[Seen, float]] = {}

    @contextmanager
    def hold(
        self, names: Iterable[str], *, on_wait: Callable[[str], None], poll: Callable[[], None]
    ) -> Iterator[None]:
        """Hold several leases, taken in sorted order so that two owners cannot deadlock.

        `on_wait` is called once with the name that is held elsewhere; `poll` at least twice a
        second while waiting, and may raise.

        Raises:
            LeaseLost: the block failed, and one of the leases was taken over meanwhile.
            StoreError: the folder cannot be used.
        """
        wanted = sorted(set(names))
        with ExitStack() as held:
            for index, name in enumerate(wanted):
                is_waiting = False
                while not self._take(name, held):
                    # All are watched at once: several leases of one dead owner cost one wait.
                    if any([self._remove_dead(other) for other in wanted[index:]]):
                        continue
                    if not is_waiting:
                        on_wait(name)
                    is_waiting = True
                    poll()
                    self._pause()
            with self._guarded(wanted):
                yield

    @contextmanager
    def hold_free(self, names: Iterable[str]) -> Iterator[set[str]]:
        """Hold those leases that no other owner has, without waiting; yields their names.

        Raises:
            As `hold`.
        """
        with ExitStack() as held:
            own = {
                name
                for name in sorted(set(names))
                if self._take(name, held) or (self._remove_dead(name) and self._take(name, held))
            }
            with self._guarded(own):
                yield own

    @contextmanager
    def _guarded(self, names: Collection[str]) -> Iterator[None]:
        """Say of a block that fails after one of its leases was lost that this is why."""
        try:
            yield
        except Exception:
            self.require(*names)
            raise

    @contextmanager
    def show(self, name: str) -> Iterator[None]:
        """Hold a lease whose name is this owner's own; it may be lost without being missed."""
        lease = self._create(name)
        try:
            yield
        finally:
            if lease is not None:
                lease.give_back()

    def require(self, *names: str) -> None:
        """Look whether leases are still held.

        Raises:
            LeaseLost: one was never taken, or was taken over by another owner.
        """
        for name in names:
            held = self._held.get(name)
            with reading(self._folder):
                if held is None or not held.is_own():
                    raise LeaseLost(
                        f"{self._folder / name}: must be held by whoever publishes the work, but "
                        "another process has taken it over; what that one makes is used"
                    )

    def require_unbroken(self) -> None:
        """Look whether a renewal found a lease lost; reads a file only then.

        Raises:
            LeaseLost: another owner has taken over, so there is no use in going on.
        """
        self.require(*(name for name, lease in self._held.items() if lease.is_lost))

    def is_own(self, name: str) -> bool:
        """Return whether this owner took a lease and has not given it back."""
        return name in self._held

    def owner_of(self, name: str) -> str:
        """Return who holds a lease, for a message."""
        seen = self._look(name)
        owner = seen.owner if seen else {}
        return f"process {owner.get('pid')} on {owner.get('host')}"

    def is_held(self, name: str) -> bool:
        """Return whether a lease is held by an owner that is not known to be dead."""
        return self._look(name) is not None and self._dead(name) is None

    def is_alive(self, name: str, poll: Callable[[], None] = lambda: None) -> bool:
        """Watch a lease until it is clear whether its owner lives.

        It takes a sixth of the lease for a living owner on another host, and the whole for a dead;
        `poll` is called meanwhile.
        """
        first = self._look(name)
        while (seen := self._look(name)) is not None and self._dead(name) is None:
            if seen != first or (self._is_here(seen) and not seen.is_unlocked):
                return True
            poll()
            self._pause()
        return False

    def names(self, prefix: str) -> list[str]:
        """Return the leases with a prefix, held or dead."""
        with reading(self._folder):
            return sorted(name for name in os.listdir(self._folder) if name.startswith(prefix))

    def _take(self, name: str, held: ExitStack) -> bool:
        """Take a lease until a block ends, if there is none; return whether it is taken."""
        lease = self._create(name)
        if lease is not None:
            self._held[name] = lease
            held.callback(self._release, name)
        return lease is not None

    def _create(self, name: str) -> Held | None:
        """Create a lease, or return None if there is one."""
        path = self._folder / name
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                return None
            # The kernel drops this lock when the process ends, however it ends. So on the same
            # kernel an unlocked lease is a dead owner's: unlike a process number, the lock cannot
            # pass to another process, and it is seen from other containers too. Where locks do not
            # work, and between kernels, only time tells.
            boot_id = self._host.boot_id if lock(file, fcntl.LOCK_EX) else ""
            owner = {**self._signed(), "boot_id": boot_id}
            lease = Lease(path, json.dumps(owner).encode(), file, length_s=self._length_s)
            try:
                os.write(file, lease.content)
                os.fsync(file)
            except BaseException:
                os.close(file)
                path.unlink(missing_ok=True)
                raise
        keep(lease)
        return lease

    def _signed(self) -> dict[str, Any]:
        """Return what every new lease of this owner says, with a token of its own."""
        return {
            "host": self._host.name,
            "pid": os.getpid(),
            "length_s": self._length_s,
            "token": uuid4().hex,
        }

    def _release(self, name: str) -> None:
        self._held.pop(name).give_back()

    def _look(self, name: str) -> Seen | None:
        with reading(self._folder):
            return look(self._folder / name)

    def _dead(self, name: str) -> Seen | None:
        """Return a lease whose owner is known to be dead, or None."""
        seen = self._look(name)
        if seen is None:
            self._watched.pop(name, None)
            return None
        known, since = self._watched.get(name, (None, 0.0))
        if known != seen:
            since = time.monotonic()
            self._watched[name] = seen, since
        if self._is_here(seen) and seen.is_unlocked:
            return seen
        is_stale = time.monotonic() - since >= seen.owner.get("length_s", self._length_s)
        return seen if is_stale else None

    def _remove_dead(self, name: str) -> bool:
        """Delete a lease whose owner is known to be dead; return whether there was one."""
        dead = self._dead(name)
        if dead is None:
            return False
        with writing(self._folder):
            remove(self._folder / name, lambda found: found == dead)
        return True

    def _is_here(self, seen: Seen) -> bool:
        own, owner = self._host, seen.owner
        is_same = (owner.get("host"), owner.get("boot_id")) == (own.name, own.boot_id)
        return is_same and own.boot_id != ""

    def _pause(self) -> None:
        time.sleep(random.uniform(0.5, 1.0) * min(POLL_S, self._length_s / RENEWALS))
