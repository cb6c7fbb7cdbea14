"""Leases of a store in a bucket: one in the folder here, and with it one in the bucket.

The lease in the folder keeps this machine's processes apart, and ends with its owner at once. That
in the bucket keeps machines apart: an object that was created where none was, and is written anew
by its owner's process every sixth of its length; unchanged for that length on the watcher's own
clock, it may be taken over. What a dead process of this machine has left there is taken over at
once by whoever has the lease in the folder.

Guaranteed, and given up, is what `spar_bench.leases` says: two may hold one dead lease for an
instant, so what they publish must be published in a way that only one can win.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spar_bench.bucket.objects import Bucket
from spar_bench.bucket.recent import Recent
from spar_bench.errors import StoreError
from spar_bench.lease_files import Renewed, Renewer, Seen
from spar_bench.leases import Held, Host, Leases
from spar_bench.stage import canonical, digest

_FOLDER, _PLACE = "leases", "place"


@dataclass(eq=False)
class _Far(Renewed):
    """A lease that is an object in a bucket."""

    bucket: Bucket
    name: str
    owner: dict[str, Any]
    n_renewed: int = 0

    @property
    def content(self) -> bytes:
        """What the object contains, another after each renewal."""
        return canonical({**self.owner, "renewed": self.n_renewed}).encode()

    def is_own(self) -> bool:
        """Return whether the object is still this process's."""
        seen = _look(self.bucket, self.name)
        return seen is not None and seen.owner.get("token") == self.owner["token"]

    def give_back(self) -> None:
        """Stop renewing it, and delete it if it is still this process's."""
        if _renewer.remove(self):
            self.end()

    def _touch(self) -> None:
        if not self.is_lost:  # else another's would be replaced
            self.n_renewed += 1
            self.bucket.replace(self.name, self.content)

    def _delete(self) -> None:
        with suppress(StoreError, FileNotFoundError):  # it ends by itself
            if self.is_own():
                self.bucket.delete(self.name)


@dataclass(frozen=True)
class _Both:
    """A lease in the folder, and that in the bucket."""

    near: Held
    far: _Far

    @property
    def is_lost(self) -> bool:
        """Whether a renewal found one of them to be another's."""
        return self.near.is_lost or self.far.is_lost

    def is_own(self) -> bool:
        """Return whether both are still this process's."""
        return self.near.is_own() and self.far.is_own()

    def give_back(self) -> None:
        """Let others take it: first those of other machines, then those of this one."""
        self.far.give_back()
        self.near.give_back()


class BucketLeases(Leases):
    """The leases of a folder and a bucket, as one owner takes them."""

    def __init__(self, folder: Path, bucket: Bucket, length_s: float, host: Host | None) -> None:
        super().__init__(folder, length_s, host)
        self._bucket = bucket
        self._far = Recent(lambda: bucket.versions(_FOLDER))
        self._read: dict[str, tuple[str, Seen]] = {}

    def names(self, prefix: str) -> list[str]:
        """Return the leases with a prefix, held or dead."""
        far = {name for name in self._bucket.names(_FOLDER) if name.startswith(prefix)}
        return sorted(far.union(super().names(prefix)))

    @property
    def _place(self) -> str:
        """What tells this folder from those of other machines, though they may have its name."""
        status = self._folder.parent.stat()
        return digest([self._host.name, self._host.boot_id, status.st_dev, status.st_ino])

    def _create(self, name: str) -> Held | None:
        near = super()._create(name)
        if near is None:
            return None
        try:
            far = self._claim(name)
        except BaseException:
            near.give_back()
            raise
        if far is None:
            near.give_back()
            return None
        _renewer.add(far)
        return _Both(near, far)

    def _claim(self, name: str) -> _Far | None:
        """Create the lease in the bucket, or take over what a dead process left; else None."""
        owner = {**self._signed(), _PLACE: self._place}
        far = _Far(self._bucket, f"{_FOLDER}/{name}", owner, length_s=self._length_s)
        if self._bucket.create(far.name, far.content):
            return far
        seen = _look(self._bucket, far.name)
        if seen is None or not self._is_left(seen):
            return None
        self._bucket.replace(far.name, far.content)
        return far

    def _look(self, name: str) -> Seen | None:
        return super()._look(name) or self._look_far(name)

    def _look_far(self, name: str) -> Seen | None:
        """Return the lease in the bucket; unlocked if it is one of this folder, which has none.

        It is read again only if it has changed, as is seen of all at once.
        """
        version = self._far.get().get(name)
        known, seen = self._read.get(name, ("", None))
        if known != version or seen is None:
            self._read.pop(name, None)
            seen = _look(self._bucket, f"{_FOLDER}/{name}") if version is not None else None
            if version is not None and seen is not None:
                seen = Seen(seen.content, 0, self._is_left(seen))
                self._read[name] = version, seen
        return seen

    def _is_left(self, seen: Seen) -> bool:
        """Return whether a lease in the bucket is of this folder, whose own keeps others away."""
        return seen.owner.get(_PLACE) == self._place

    def _is_here(self, seen: Seen) -> bool:
        return super()._is_here(seen) or self._is_left(seen)

    def _remove_dead(self, name: str) -> bool:
        dead = self._dead(name)
        if dead is None or _PLACE not in dead.owner:
            return super()._remove_dead(name)
        if self._is_left(dead):
            return self._remove_left(name)
        now = _look(self._bucket, f"{_FOLDER}/{name}")
        if now == dead:
            self._bucket.delete(f"{_FOLDER}/{name}")
        self._far.forget()
        return now is None or now == dead

    def _remove_left(self, name: str) -> bool:
        """Delete what a dead process of this folder has left; False if another takes it now."""
        near = super()._create(name)  # with which nobody else here can claim it meanwhile
        if near is None:
            return False
        try:
            self._bucket.delete(f"{_FOLDER}/{name}")
            self._far.forget()
        finally:
            near.give_back()
        return True


def _look(bucket: Bucket, name: str) -> Seen | None:
    """Return a lease's object, or None if there is none."""
    with suppress(FileNotFoundError):
        return Seen(bucket.read(name), 0, is_unlocked=False)
    return None


_renewer = Renewer[_Far]()
"""Not the folder's, which a slow network must not delay."""


def _forget_parents_leases() -> None:
    """Leave them to the parent, in a forked child."""
    global _renewer
    for lease in _renewer.leases:
        lease.is_lost = True
    _renewer = Renewer()


os.register_at_fork(after_in_child=_forget_parents_leases)
