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
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from spar_bench.elsewhere import Elsewhere, Key, keys
from spar_bench.errors import NotReady
from spar_bench.stage import Damaged, canonical
from spar_bench.store import MARKER

_AT_ONCE = 500
"""Manifests that are asked for at once."""


class Bucket(Elsewhere):
    """A store under an address, which this process may add to.

    Raises:
        As `Elsewhere`.
    """

    FORMAT = "bucket 1"

    def begin(self) -> None:
        """Make it a store unless it is one.

        Raises:
            NotReady: it is one of another format, or does not refuse to create what is there, on
                which leases and publishing rest.
        """
        content = canonical({"format": self.FORMAT}).encode()
        try:
            is_new = self.create(MARKER, content)
        except FileNotFoundError:
            with self.answering():
                self._fs.makedirs(self._root, exist_ok=True)
            is_new = self.create(MARKER, content)
        is_exclusive = not (is_new and self.create(MARKER, content))
        self.require_store()
        if not is_exclusive:
            raise NotReady(
                f"{self.url}: must refuse to create what is there, as S3 does if it is told "
                "If-None-Match, but replaced it; use another service, or a folder"
            )

    def create(self, name: str, content: bytes) -> bool:
        """Create an object; return False if there is one, which stays."""
        with self.answering():
            try:
                self._fs.pipe_file(self._at(name), content, mode="create")
            except FileExistsError:
                return False
        return True

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
        with self.answering():
            found = self._fs.find(self._at(folder), detail=True)
        n_before = len(self._at(folder)) + 1
        return {
            str(name)[n_before:].lstrip("/"): canonical({k: str(v) for k, v in about.items()})
            for name, about in found.items()
        }

    def stages(self) -> set[Key]:
        """Return the stages that are there; raises as `answering`."""
        return keys(tuple(name.split("/")) for name in self.versions("stages"))

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

    def publish(self, key: Key, manifest: dict[str, Any], path: Callable[[str], Path]) -> bool:
        """Add a stage, whose files `path` gives; return False if there is one, which stays."""
        with self.answering():
            for folder in (f"stages/{key[0]}", f"files/{key[1]}"):
                self._fs.makedirs(self._at(folder), exist_ok=True)
            there = self._fs.find(self._at(f"files/{key[1]}"), detail=True)
        sizes = {place: about["size"] for place, about in there.items()}
        files = {
            self._at(self._file_name(key, name, entry["sha256"])): name
            for name, entry in manifest["files"].items()
        }
        lacking = {  # the others are there, of an attempt that was cut off
            at: str(path(name))
            for at, name in files.items()
            if sizes.get(at) != manifest["files"][name]["bytes"]
        }
        if lacking:
            with self.answering():
                self._fs.put(list(lacking.values()), list(lacking))
        if self.create(self._manifest_name(key), json.dumps(manifest, indent=1).encode()):
            return True
        theirs = self.manifest(key)["files"]
        kept = {self._at(self._file_name(key, n, one["sha256"])) for n, one in theirs.items()}
        self._delete_all(files.keys() - kept)
        return False

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
