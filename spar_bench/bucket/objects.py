"""A bucket: finished stages and what goes with them as objects, under any address of fsspec.

    <address>/store.json                    the format
    <address>/stages/<kind>/<fingerprint>   the manifest of a stage that is complete
    <address>/files/<fingerprint>/<sha256>  its files, each by its content
    <address>/failures/, leases/, results/, studies/    as in a folder

An object appears whole and is replaced whole, but none can be renamed, and a writer that was paused
may replace what another has written since. So files have names that no other content has, and the
manifest, created last and only if there is none, decides of two makers whose stage it is.
"""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from spar_bench.elsewhere import Elsewhere, Key, keys
from spar_bench.errors import NotReady
from spar_bench.stage import Damaged, canonical
from spar_bench.store import MARKER

_AT_ONCE = 100
"""Manifests that are asked for at once."""
_TRIES, _PAUSE_S = 5, 0.2
_IS_THERE = {"PreconditionFailed", "412"}
_CONFLICT = {"ConditionalRequestConflict", "409"}
"""What S3 answers to a creation: there is one; and another is being made or deleted, ask again."""


class Bucket(Elsewhere):
    """A store under an address, which this process may add to.

    Raises:
        As `Elsewhere`.
    """

    FORMAT = "bucket 1"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        if set("[]*?") & set(url):  # which fsspec takes for a pattern
            raise NotReady(f"{url}: must have no [, ], * or ? in it, but has; give another address")

    def begin(self) -> None:
        """Make it a store unless it is one.

        Raises:
            NotReady: there is no such bucket, it is a store of another format, or it does not
                refuse to create what is there, on which leases and publishing rest.
        """
        content = canonical({"format": self.FORMAT}).encode()
        try:
            is_exclusive = not (self.create(MARKER, content) and self.create(MARKER, content))
        except FileNotFoundError as error:
            raise NotReady(
                f"{self.url}: must be in a bucket that exists, but there is none; create it, or "
                "correct the address"
            ) from error
        self.require_store()
        if not is_exclusive:
            raise NotReady(
                f"{self.url}: must refuse to create what is there, as S3 does if it is told "
                "If-None-Match, but replaced it; use another service, or a folder"
            )

    def create(self, name: str, content: bytes) -> bool:
        """Create an object; return False if there is one, which stays."""
        for n_left in reversed(range(_TRIES)):
            with self.answering():
                try:
                    self._fs.pipe_file(self._at(name), content, mode="create")
                    return True
                except FileExistsError:
                    return False
                except OSError as error:  # of a service that says it less plainly than Amazon's
                    response = getattr(error.__cause__, "response", {})
                    code = response.get("Error", {}).get("Code")
                    if code in _IS_THERE:
                        return False
                    if code not in _CONFLICT or not n_left:
                        raise
            time.sleep(random.uniform(0.5, 1.0) * _PAUSE_S)
        raise AssertionError("the last try has returned or raised")

    def replace(self, name: str, content: bytes) -> None:
        """Write an object, which replaces another."""
        with self.answering():
            self._fs.pipe_file(self._at(name), content)

    def delete(self, name: str) -> None:
        """Delete an object if it is there."""
        with self.answering(), suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    def versions(self, folder: str) -> dict[str, str]:
        """Return the objects below a folder by their names in it; equal texts, equal contents."""
        found = dict[str, Any]()
        with self.answering(), suppress(FileNotFoundError):
            found = self._fs.find(self._at(folder), detail=True)
        n_before = len(self._at(folder)) + 1
        return {
            str(name)[n_before:].lstrip("/"): canonical({k: str(v) for k, v in about.items()})
            for name, about in found.items()
        }

    def stages(self) -> set[Key]:
        """Return the stages that are there; raises as `answering`."""
        return set(self.manifest_bytes())

    def manifest_bytes(self) -> dict[Key, int]:
        """Return the stages that are there, and the size of each one's manifest."""
        found = {
            tuple(name.split("/")): int(json.loads(about).get("size", 0))
            for name, about in self.versions("stages").items()
        }
        return {key: found[key] for key in keys(found)}

    def has(self, key: Key) -> bool:
        """Return whether a stage is there now."""
        return self._size(self._at(self._manifest_name(key))) is not None

    def manifests(self, wanted: Iterable[Key]) -> Iterator[tuple[Key, dict[str, Any] | Damaged]]:
        """Yield the manifests of stages, or what is wrong with them; not those that are gone.

        Raises:
            StoreError: one cannot be read now.
        """
        left = {self._at(self._manifest_name(key)): key for key in wanted}
        paths = list(left)
        for start in range(0, len(paths), _AT_ONCE):
            with self.answering():
                found = self._fs.cat(paths[start : start + _AT_ONCE], on_error="return")
            for path, content in found.items():
                key = left[path]
                if isinstance(content, FileNotFoundError):
                    continue
                if isinstance(content, Exception):
                    with self.answering():
                        raise content
                try:
                    yield key, self._checked(key, content)
                except Damaged as damaged:
                    yield key, damaged

    def publish(
        self, key: Key, manifest: dict[str, Any], path: Callable[[str], Path]
    ) -> dict[str, Any]:
        """Add a stage, whose files `path` gives; return its manifest, or of one that was there."""
        content = json.dumps(manifest, indent=1).encode()
        self._send(key, manifest, path)
        while not self.create(self._manifest_name(key), content):
            with suppress(FileNotFoundError):  # discarded since
                theirs = self.manifest(key)
                kept = set(self._places(key, theirs))
                self._delete_all(self._places(key, manifest).keys() - kept)
                return theirs
        self._send(key, manifest, path)  # what whoever discarded one before has deleted since
        return manifest

    def _send(self, key: Key, manifest: dict[str, Any], path: Callable[[str], Path]) -> None:
        """Upload those of a stage's files that are not there, whole."""
        with self.answering():
            there = self._fs.find(self._at(f"files/{key[1]}"), detail=True)
        lacking = {
            place: str(path(name))
            for place, name in self._places(key, manifest).items()
            if there.get(place, {}).get("size") != manifest["files"][name]["bytes"]
        }
        if lacking:
            with self.answering():
                self._fs.put(list(lacking.values()), list(lacking))

    def _places(self, key: Key, manifest: dict[str, Any]) -> dict[str, str]:
        """Return the names of a stage's files by their places."""
        return {
            self._at(self._file_name(key, name, entry["sha256"])): name
            for name, entry in manifest["files"].items()
        }

    def discard(self, key: Key) -> None:
        """Delete a stage: its manifest first, without which it is none."""
        self.delete(self._manifest_name(key))
        folder = f"files/{key[1]}"
        self._delete_all(self._at(f"{folder}/{sha256}") for sha256 in self.names(folder))

    def _delete_all(self, places: Iterable[str]) -> None:
        """Delete objects by their whole names, those of them that are there."""
        if found := list(places):
            with self.answering(), suppress(FileNotFoundError):
                self._fs.rm(found)

    def _size(self, at: str) -> int | None:
        """Return the bytes of an object, None if there is none."""
        with self.answering():
            try:
                return int(self._fs.info(at)["size"])
            except FileNotFoundError:
                return None

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _manifest_name(self, key: Key) -> str:
        return f"stages/{key[0]}/{key[1]}"

    def _file_name(self, key: Key, name: str, sha256: str) -> str:
        return f"files/{key[1]}/{sha256}"


def reached(url: str) -> Elsewhere:
    """Return the store under an address: a folder's, or a bucket, which need not be there yet.

    Raises:
        NotReady: as `Elsewhere`.
    """
    found = Elsewhere(url)
    is_folder = found.folder is not None or found.format() == Elsewhere.FORMAT
    return found if is_folder else Bucket(url)
