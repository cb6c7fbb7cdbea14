"""The store of a folder that shares a bucket: what is finished is there, work goes on here.

A stage that another machine has finished is found by its manifest, and its files are copied here
when one is first read. One that is finished here is published there first, so that what is in the
folder is in the bucket. Unfinished work, plans and progress stay in the folder.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from spar_bench.bucket.failures import BucketFailures
from spar_bench.bucket.leases import BucketLeases
from spar_bench.bucket.objects import Bucket
from spar_bench.bucket.recent import Recent
from spar_bench.elsewhere import Key
from spar_bench.errors import StoreError
from spar_bench.files import read_json, replace_bytes, replace_text, subfolders, writing
from spar_bench.leases import LEASE_S, Host
from spar_bench.scratch import parts_folder
from spar_bench.stage import Damaged, Finished, canonical
from spar_bench.stages.base import Stage
from spar_bench.store import Store

_FAR = -1, -1
"""Stands for the time and size of a manifest that is in the bucket."""
_VERSIONS = "versions.json"
"""What of the bucket's results is here, beside them."""
_AHEAD, _SMALL_BYTES = 200, 16 << 10
"""Manifests that are read with one that is wanted, and the most that one of them may have."""


@dataclass(frozen=True, kw_only=True)
class Distant(Finished):
    """A finished stage whose files `bring` copies here when one is first read."""

    key: Key
    bucket: Bucket
    bring: Callable[[], None]

    @property
    def place(self) -> str:
        """Where it is, for a reader."""
        kind, fingerprint = self.key
        return f"{self.bucket.url}/stages/{kind}/{fingerprint}"

    def path(self, name: str) -> Path:
        """Return a file of the stage, copied here and verified.

        Raises:
            Damaged: a file is missing in the bucket, or altered.
        """
        if not self.folder.is_dir():
            self.bring()
        return super().path(name)

    def check(self, *, hashed: bool) -> None:
        """Read every file in the bucket, if `hashed`, and copy none; raises as `path`."""
        if self.folder.is_dir():
            super().check(hashed=hashed)
        elif hashed:
            for name, entry in self.manifest["files"].items():
                for _ in self.bucket.checked(self.key, name, entry["sha256"]):
                    pass


class BucketStore(Store):
    """The store of a folder, which shares a bucket with those of other machines.

    Raises:
        NotReady: the bucket is no such store, or cannot be one.
        StoreError: it does not answer.
    """

    is_shared_by_folder = False
    leases: BucketLeases
    failures: BucketFailures

    def __init__(
        self,
        root: Path,
        bucket: Bucket,
        *,
        make: bool = True,
        lease_s: float = LEASE_S,
        host: Host | None = None,
    ) -> None:
        super().__init__(root, make=make, lease_s=lease_s, host=host)
        if make:
            bucket.begin()
        elif bucket.format() is not None:
            bucket.require_store()
        self.bucket = bucket
        self.leases = BucketLeases(self.root / "leases", Bucket(bucket.url), lease_s, host)
        self.failures = BucketFailures(self.root / "failures", bucket)
        self._there = Recent(
            lambda: {key[1]: (key[0], size) for key, size in bucket.manifest_bytes().items()}
        )
        self._is_in_use = False
        self._shared: dict[Path, tuple[int, int]] | None = None

    @property
    def place(self) -> str:
        """Where it is, for a reader."""
        return self.bucket.url

    @cached_property
    def results(self) -> Path:
        """The folder of what sweeps leave for reports, with what is new in the bucket."""
        folder, noted = super().results, self.root / _VERSIONS
        with writing(self.root):
            here = read_json(noted) if noted.exists() else {}
        there = self.bucket.versions("results")
        for name, version in there.items():
            if here.get(name) != version or not (folder / name).exists():
                if ".." in Path(name).parts:
                    raise StoreError(
                        f"{self.bucket.url}/results/{name}: must be inside of results/, but is "
                        "not; delete it"
                    )
                replace_bytes(folder / name, self.bucket.read(f"results/{name}"))
        replace_text(noted, json.dumps(there))
        return folder

    def note(self, name: str) -> dict[str, Any] | None:
        """Return what was noted under a name for all who share the store, or None."""
        with suppress(FileNotFoundError):
            value: dict[str, Any] = json.loads(self.bucket.read(name))
            return value
        return None

    def write_note(self, name: str, value: dict[str, Any]) -> None:
        """Note a JSON object under a name for all who share the store."""
        self.bucket.replace(name, canonical(value).encode())

    @contextmanager
    def in_use(self, *, on_wait: Callable[[str], None], poll: Callable[[], None]) -> Iterator[None]:
        """Keep `unused` from being entered meanwhile; what lacks in the bucket is added to it.

        What was begun here and finished on another machine is deleted at the end.
        """
        with super().in_use(on_wait=on_wait, poll=poll):
            self._shared, self._is_in_use = self._written(), True
            try:
                yield
                self.share_results()
                self._discard_overtaken()
            finally:
                self._is_in_use = False

    def share_results(self) -> None:
        """Put what has been written of results since the last time into the bucket."""
        before, self._shared = self._shared, self._written()
        for path, written in self._shared.items():
            if before is None or before.get(path) != written:
                name = path.relative_to(self.root).as_posix()
                self.bucket.replace(name, path.read_bytes())

    def _discard_overtaken(self) -> None:
        """Delete unfinished work on stages that others have finished."""
        for folder in subfolders(self.root / "scratch"):
            names = (folder.name, _fetching(folder.name))
            if folder.name in self._there.get() and not any(map(self.here.is_held, names)):
                self.discard_unfinished(folder.name)

    def _written(self) -> dict[Path, tuple[int, int]]:
        """Return when each file of results was written, and its size."""
        files = (path for path in self.results.rglob("[!.]*") if path.is_file())
        found = [(path, path.stat()) for path in files]
        return {path: (status.st_mtime_ns, status.st_size) for path, status in found}

    def find_by_fingerprint(self, fingerprint: str) -> Finished | None:
        """Return a finished stage of any kind, or None; raises as `find` does."""
        if known := self._there.get().get(fingerprint):
            return self._find(self.root / "stages" / known[0] / fingerprint)
        return super().find_by_fingerprint(fingerprint)

    def opened(self, kind: str, fingerprint: str) -> Finished | None:
        """Return a finished stage; unlike `find`, check each file only when it is read.

        Raises:
            Damaged: its manifest is not intact.
        """
        folder = self.root / "stages" / kind / fingerprint
        try:
            return super().opened(kind, fingerprint) or self._find_far(folder)
        except Damaged:
            far = self._find_far(folder)
            if far is None:
                raise
            return far

    def finished(self, kind: str = "") -> Iterator[Finished]:
        """Yield finished stages, of a kind or all, unchecked; `unreadable` reports the others."""
        yield from super().finished(kind)
        for key, manifest in self.bucket.manifests(self._only_there(kind)):
            if not isinstance(manifest, Damaged):
                yield self._distant(key, manifest)

    def unreadable(self) -> Iterator[StoreError]:
        """Yield what is wrong with each stage whose manifest is missing, damaged or unreadable."""
        yield from super().unreadable()
        for _, manifest in self.bucket.manifests(self._only_there()):
            if isinstance(manifest, Damaged):
                yield manifest

    def discard(self, fingerprint: str) -> None:
        """Delete a finished stage, here and there; not one being made."""
        super().discard(fingerprint)
        if known := self._there.get().get(fingerprint):
            with self.leases.hold_free([fingerprint]) as own:
                if own:
                    self.bucket.discard((known[0], fingerprint))
            self._there.forget()

    def reopen(self, stage: Stage) -> str:
        """Bring a damaged stage from the bucket, or have it made again if it is damaged there.

        Returns what is wrong, "" if it is intact; raises as `Store.reopen`.
        """
        key = stage.kind, stage.fingerprint
        folder = self.root.joinpath("stages", *key)
        self._close(self._address(folder))
        try:
            found = self._find_far(folder)
            if found is None:
                return super().reopen(stage)
            self._set_aside(folder)
            self._bring(key, found.manifest)
            return ""
        except Damaged as damage:
            self.leases.require(stage.fingerprint)
            self.bucket.discard(key)
            self._there.forget()
            return str(damage)

    def _publish(self, key: Key, output: Path, manifest: dict[str, Any]) -> dict[str, Any]:
        published = self.bucket.publish(key, manifest, output.joinpath)
        self._there.get()[key[1]] = key[0], len(json.dumps(published))
        if published is manifest:
            return super()._publish(key, output, manifest)
        self._bring(key, published)
        return published

    def _find(self, folder: Path) -> Finished | None:
        try:
            found = super()._find(folder)
        except Damaged:
            far = self._find_far(folder)
            if far is None:
                raise
            self._set_aside(folder)
            return far
        if found is not None and self._is_in_use and folder.name not in self._there.get():
            return self._published_again(folder, found)
        return found or self._find_far(folder)

    def _published_again(self, folder: Path, found: Finished) -> Finished | None:
        """Add a stage that is here to the bucket, from which another machine has deleted it."""
        key = folder.parent.name, folder.name
        self._there.forget()
        if folder.name in self._there.get():  # a worker here has published it just now
            return found
        published = self.bucket.publish(key, found.manifest, found.path)
        self._there.forget()
        if published == found.manifest:
            return found
        self._set_aside(folder)
        return self._distant(key, published)

    def _find_far(self, folder: Path) -> Finished | None:
        """Return a stage that is in the bucket, or None; asked anew by whoever is to make it."""
        key = folder.parent.name, folder.name
        is_there = self._there.get().get(folder.name, ("", 0))[0] == folder.parent.name
        if not is_there and self.leases.is_own(folder.name) and self.bucket.has(key):
            is_there = True
            self._there.forget()
        if not is_there:
            return None
        known = self._opened.get(self._address(folder))
        return known[1] if known is not None else self._read_far(key)

    def _read_far(self, wanted: Key) -> Distant | None:
        """Return a stage in the bucket, None if it was discarded since.

        Its manifest and some others', small ones, which take no more time, are kept in memory.
        """
        unread = (
            (kind, fingerprint)
            for fingerprint, (kind, n_bytes) in list(self._there.get().items())
            if n_bytes <= _SMALL_BYTES
            and self._address(Path(kind, fingerprint)) not in self._opened
            and not self.root.joinpath("stages", kind, fingerprint).is_dir()
        )
        found = None
        for key, manifest in self.bucket.manifests({wanted, *islice(unread, _AHEAD)}):
            if not isinstance(manifest, Damaged):
                one = self._distant(key, manifest)
                self._keep_open(self._address(Path(*key)), _FAR, one)
                found = one if key == wanted else found
            elif key == wanted:
                raise manifest
        return found

    def _address(self, folder: Path) -> Path:
        """Return what a stage's manifest in the bucket is kept in memory by."""
        return Path(self.bucket.url, *folder.parts[-2:])

    def _distant(self, key: Key, manifest: dict[str, Any]) -> Distant:
        return Distant(
            self.root.joinpath("stages", *key),
            manifest,
            key=key,
            bucket=self.bucket,
            bring=partial(self._bring, key, manifest),
        )

    def _bring(self, key: Key, manifest: dict[str, Any]) -> None:
        """Copy a stage here, unless another process of this machine does meanwhile."""
        folder = self.root.joinpath("stages", *key)
        name = _fetching(key[1])
        with self.here.hold([name], on_wait=lambda _: None, poll=lambda: None):
            if not folder.is_dir():
                output = parts_folder(self.root, key[1], name)
                self.bucket.fetch(key, manifest, output)
                super()._publish(key, output, manifest)
                with suppress(OSError):  # where other work on it lies
                    output.parent.rmdir()

    def _set_aside(self, folder: Path) -> None:
        """Delete a damaged copy of what is in the bucket."""
        self._close(folder)
        aside = parts_folder(self.root, folder.name, f"damaged-{self.leases.owner}")
        with writing(self.root), suppress(FileNotFoundError):
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.rename(folder, aside)
            shutil.rmtree(aside)
            with suppress(OSError):
                aside.parent.rmdir()

    def _only_there(self, kind: str = "") -> list[Key]:
        """Return the stages that are in the bucket, but not here."""
        return [
            key
            for key in sorted(self.bucket.stages())
            if kind in ("", key[0]) and not self.root.joinpath("stages", *key).is_dir()
        ]


def _fetching(fingerprint: str) -> str:
    """Return the name of the lease, and of the folder, of whoever copies a stage here."""
    return f"fetch-{fingerprint}"
