"""A store that fsspec reaches, as it is read: a folder here or there, or a bucket.

Nothing in it is leased. Each file is checked by whoever takes it against the stage's manifest.
"""

import errno
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spar_bench import stages
from spar_bench.errors import NotReady, SparBenchError, StoreError
from spar_bench.files import file_sha256, replace_bytes, writing
from spar_bench.stage import MANIFEST, Damaged, digest, has_own_checksum
from spar_bench.store import FORMAT, MARKER
from spar_bench.track.uri import masked, require_no_password

_CHUNK_BYTES = 4 << 20
_FILES_AT_ONCE = 100
_TRANSFERS_AT_ONCE = 8
_KIND, _FINGERPRINT = re.compile(r"[A-Za-z]\w*"), re.compile(r"[0-9a-f]{64}")

Key = tuple[str, str]
"""Kind and fingerprint of a stage."""


class Elsewhere:
    """A store of finished stages under an address, laid out as in a folder.

    Raises:
        NotReady: fsspec does not know such an address, what it needs is not installed, or the
            address has a password, which would be printed.
    """

    FORMAT: int | str = FORMAT

    def __init__(self, url: str) -> None:
        require_no_password(url)
        self.url, self._opened = url, _opened(url)
        self._root = self._opened[2]

    @property
    def _fs(self) -> Any:
        """What fsspec reaches it by; another in a forked child, which cannot use its parent's."""
        if self._opened[0] != os.getpid():
            self._opened = _opened(self.url)
        return self._opened[1]

    @property
    def folder(self) -> Path | None:
        """The folder that it is on this machine; None for what is reached otherwise."""
        protocol = self._fs.protocol
        is_local = "file" in ([protocol] if isinstance(protocol, str) else protocol)
        return Path(self._root) if is_local else None

    def format(self) -> object:
        """Return the format of what is there, None if that is no store."""
        try:
            found = json.loads(self.read(MARKER))
        except (FileNotFoundError, ValueError):
            return None
        return found.get("format") if isinstance(found, dict) else None

    def require_store(self) -> None:
        """Refuse what is no store of this format.

        Raises:
            NotReady: it is another, or none.
        """
        found = self.format()
        if found != self.FORMAT:
            raise NotReady(
                f"{self.url}: must be a store of format {self.FORMAT}, but is "
                f"{'none' if found is None else f'of format {found!r}'}; correct the address"
            )

    def stages(self) -> set[Key]:
        """Return the stages that are there; raises as `answering`."""
        with self.answering():
            found = self._fs.glob(f"{glob.escape(self._root)}/stages/*/*/{MANIFEST}")
        return keys(tuple(str(path).split("/")[-3:-1]) for path in found)

    def manifest(self, key: Key) -> dict[str, Any]:
        """Return the manifest of a stage, checked against its own checksum.

        Raises:
            Damaged: it is altered, or another's.
            FileNotFoundError: there is no such stage.
        """
        return self._checked(key, self.read(self._manifest_name(key)))

    def fetch(self, key: Key, manifest: dict[str, Any], output: Path) -> None:
        """Write a stage's files and its manifest into a folder; those that are there stay.

        Raises:
            Damaged: a file is missing, or not what the manifest says.
        """
        files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        left = [name for name, sha256 in files.items() if not _is(output / name, sha256)]
        for start in range(0, len(left), _FILES_AT_ONCE):
            part = left[start : start + _FILES_AT_ONCE]
            self._get(key, part, files, output)
            for name in part:
                if not _is(output / name, files[name]):  # not tried, if another was missing
                    self._get(key, [name], files, output)
                if not _is(output / name, files[name]):
                    is_there = (output / name).exists()
                    detail = "differs from its checksum" if is_there else "is missing"
                    place = f"{self.url}/{self._file_name(key, name, files[name])}"
                    raise Damaged(place, detail, fingerprint=key[1])
        replace_bytes(output / MANIFEST, json.dumps(manifest, indent=1).encode())

    def _get(self, key: Key, names: list[str], files: dict[str, str], output: Path) -> None:
        """Copy files of a stage into a folder at once, until one is missing."""
        places = [f"{self._root}/{self._file_name(key, name, files[name])}" for name in names]
        with writing(output):
            for parent in {(output / name).parent for name in names}:
                parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), self.answering(), _noticing_full_disk(output):
            self._fs.get(places, [str(output / name) for name in names])

    def checked(self, key: Key, name: str, sha256: str) -> Iterator[bytes]:
        """Yield the bytes of a stage's file in parts.

        Raises:
            Damaged: it is missing, or, at the end, they are not those of that SHA-256.
        """
        at, found = self._file_name(key, name, sha256), hashlib.sha256()
        place = f"{self.url}/{at}"
        try:
            with self.answering(), self._fs.open(f"{self._root}/{at}", "rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    found.update(chunk)
                    yield chunk
        except FileNotFoundError as error:
            raise Damaged(place, "is missing", fingerprint=key[1]) from error
        if found.hexdigest() != sha256:
            raise Damaged(place, "differs from its checksum", fingerprint=key[1])

    def read(self, name: str) -> bytes:
        """Return the bytes of a file of the store."""
        with self.answering():
            content: bytes = self._fs.cat_file(f"{self._root}/{name}")
            return content

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder of the store, none if it is missing."""
        with self.answering():
            try:
                found = self._fs.ls(f"{self._root}/{folder}", detail=True)
            except FileNotFoundError:
                return []
        return [str(one["name"]).rsplit("/", 1)[-1] for one in found if one["type"] == "file"]

    def _manifest_name(self, key: Key) -> str:
        return f"stages/{key[0]}/{key[1]}/{MANIFEST}"

    def _file_name(self, key: Key, name: str, sha256: str) -> str:
        return f"stages/{key[0]}/{key[1]}/{name}"

    def _checked(self, key: Key, content: bytes) -> dict[str, Any]:
        """Return a manifest from its JSON; raises Damaged as `manifest`."""
        place = f"{self.url}/{self._manifest_name(key)}"
        try:
            manifest: dict[str, Any] = json.loads(content)
            is_intact = has_own_checksum(manifest)
        except (ValueError, AttributeError) as error:
            raise Damaged(place, "is no JSON object", fingerprint=key[1]) from error
        if not is_intact:
            raise Damaged(place, "differs from its checksum", fingerprint=key[1])
        if not _is_of(key, manifest):
            raise Damaged(place, "is of another stage", fingerprint=key[1])
        for name in manifest["files"]:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise Damaged(place, f"names a file {name!r} outside of it", fingerprint=key[1])
        return manifest

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn every error of a file system into one line; a file that is missing stays that.

        Raises:
            StoreError: it does not answer, or refuses.
        """
        try:
            yield
        except (FileNotFoundError, FileExistsError, SparBenchError):
            raise
        except Exception as error:
            reason = masked(" ".join(str(error).split()))[:200] or type(error).__name__
            raise StoreError(
                f"{self.url}: must be a store that can be read and written, but got {reason}; what "
                "is finished stays: run the same command again"
            ) from error


def _opened(url: str) -> tuple[int, Any, str]:
    """Return this process, what fsspec reaches an address by in it, and the address in that."""
    import fsspec

    try:
        # Listings of before are not kept, since others may have added to them; and each has
        # connections of its own, so that leases do not queue behind files.
        options = {"use_listings_cache": False, "skip_instance_cache": True}
        system, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError, OSError) as error:
        raise NotReady(
            f"{url}: must be a folder, or an address that fsspec knows, but is not: {error}; "
            "install what it names, or correct the address"
        ) from error
    system.batch_size = _TRANSFERS_AT_ONCE
    return os.getpid(), system, str(root).rstrip("/")


def _is(path: Path, sha256: str) -> bool:
    """Return whether a file is there, with these contents."""
    return path.exists() and file_sha256(path) == sha256


@contextmanager
def _noticing_full_disk(folder: Path) -> Iterator[None]:
    """Blame the disk here, and not the address, for what only a disk does; raises as `writing`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            with writing(folder):
                raise
        raise


def keys(named: Iterable[tuple[str, ...]]) -> set[Key]:
    """Return those names that are kind and fingerprint of a stage."""
    return {
        (name[0], name[1])
        for name in named
        if len(name) == 2 and _KIND.fullmatch(name[0]) and _FINGERPRINT.fullmatch(name[1])
    }


def _is_of(key: Key, manifest: dict[str, Any]) -> bool:
    """Return whether a manifest is that of a stage; of a kind of another package, if it says so.

    The fingerprint of the latter contains sources that a manifest does not have.
    """
    stated = [manifest.get(name) for name in ("kind", "version", "settings", "inputs")]
    is_ours = Path(stages.__file__).with_name(f"{key[0]}.py").exists()
    return stated[0] == key[0] and (not is_ours or digest(stated) == key[1])
