"""Finished stages from one store to another, by fingerprint: a cluster's, a laptop's, a bucket's.

The other store is a folder or whatever fsspec can reach, such as `s3://BUCKET/FOLDER`. Each file is
checked against its manifest on the way. A stage is there whole or not at all: in a folder it is
renamed into place, and in a bucket its manifest, by which it is found, comes last.
"""

import glob
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spar_bench import stages
from spar_bench.errors import NotReady, SparBenchError, StoreError
from spar_bench.files import publish, replace_bytes, writing
from spar_bench.results import RESULTS_FILE
from spar_bench.stage import (
    MANIFEST,
    Damaged,
    Finished,
    canonical,
    digest,
    has_own_checksum,
    read_manifest,
)
from spar_bench.store import FORMAT, MARKER, Store

_CHUNK_BYTES = 4 << 20

_KIND, _FINGERPRINT = re.compile(r"[A-Za-z]\w*"), re.compile(r"[0-9a-f]{64}")

Key = tuple[str, str]
"""Kind and fingerprint of a stage."""


@dataclass
class Moved:
    """What a transfer did: stages and bytes copied, stages that were there, and what was wrong."""

    n_stages: int = 0
    n_bytes: int = 0
    n_there: int = 0
    damaged: list[str] = field(default_factory=list)


class Elsewhere:
    """A store that fsspec reaches; nothing in it is leased, and stages are only added.

    Raises:
        NotReady: fsspec does not know such an address, or what it needs is not installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError, OSError) as error:
            raise NotReady(
                f"{url}: must be a folder, or an address that fsspec knows, but is not: {error}; "
                "install what it names, or correct the address"
            ) from error
        self._fs.invalidate_cache()  # listings of before, which others may have added to
        self.url, self._root = url, str(root).rstrip("/")

    @property
    def folder(self) -> Path | None:
        """The folder that it is on this machine; None for what is reached otherwise."""
        protocol = self._fs.protocol
        is_local = "file" in ([protocol] if isinstance(protocol, str) else protocol)
        return Path(self._root) if is_local else None

    def require_store(self) -> None:
        """Refuse what is no store of this format.

        Raises:
            NotReady: it is another, or none.
        """
        try:
            found = json.loads(self.read(MARKER)).get("format")
        except (FileNotFoundError, ValueError):
            found = None
        if found != FORMAT:
            raise NotReady(
                f"{self.url}: must be a store of format {FORMAT}, but is "
                f"{'none' if found is None else f'of format {found!r}'}; correct the address"
            )

    def begin(self) -> None:
        """Make it a store unless it is one."""
        try:
            self.read(MARKER)
        except FileNotFoundError:
            with self._answering():
                self._fs.makedirs(self._root, exist_ok=True)
                self._fs.pipe_file(f"{self._root}/{MARKER}", canonical({"format": FORMAT}).encode())
        self.require_store()

    def stages(self) -> set[Key]:
        """Return the stages that are there; raises as `answering`."""
        with self._answering():
            found = self._fs.glob(f"{glob.escape(self._root)}/stages/*/*/{MANIFEST}")
        keys = ((str(path).split("/")[-3], str(path).split("/")[-2]) for path in found)
        return {key for key in keys if _KIND.fullmatch(key[0]) and _FINGERPRINT.fullmatch(key[1])}

    def manifest(self, key: Key) -> dict[str, Any]:
        """Return the manifest of a stage, checked against its own checksum.

        Raises:
            Damaged: it is altered.
        """
        name = Path(self._at(key, MANIFEST))
        try:
            manifest: dict[str, Any] = json.loads(self.read(f"stages/{key[0]}/{key[1]}/{MANIFEST}"))
            is_intact = has_own_checksum(manifest)
        except ValueError as error:
            raise Damaged(name, "is no JSON", fingerprint=key[1]) from error
        if not is_intact:
            raise Damaged(name, "differs from its checksum", fingerprint=key[1])
        if not _is_of(key, manifest):
            raise Damaged(name, "is of another stage", fingerprint=key[1])
        return manifest

    def chunks(self, key: Key, name: str) -> Iterator[bytes]:
        """Yield the bytes of a stage's file, in parts."""
        with self._answering(), self._fs.open(self._at(key, name), "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def read(self, name: str) -> bytes:
        """Return the bytes of a file of the store."""
        with self._answering():
            content: bytes = self._fs.cat_file(f"{self._root}/{name}")
            return content

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder of the store, none if it is missing."""
        with self._answering():
            try:
                found = self._fs.ls(f"{self._root}/{folder}", detail=True)
            except FileNotFoundError:
                return []
        return [str(one["name"]).rsplit("/", 1)[-1] for one in found if one["type"] == "file"]

    def put(self, path: Path, name: str) -> None:
        """Write a file to a name in the store."""
        at = f"{self._root}/{name}"
        with self._answering():
            self._fs.makedirs(at.rsplit("/", 1)[0], exist_ok=True)
            self._fs.put_file(str(path), at)

    def _at(self, key: Key, name: str) -> str:
        return f"{self._root}/stages/{key[0]}/{key[1]}/{name}"

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn every error of a file system into one line; a file that is missing stays that."""
        try:
            yield
        except (FileNotFoundError, SparBenchError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise StoreError(
                f"{self.url}: must be a store that can be read and written, but got {reason}; what "
                "was copied stays: run the same command again"
            ) from error


def pull(store: Store, other: Elsewhere, experiments: Iterable[str] = ()) -> Moved:
    """Copy finished stages here: all, or those of experiments' results, with these."""
    other.require_store()
    moved, names = Moved(), list(experiments)
    there = other.stages()
    wanted = there & _of_results(other, names) if names else there
    for key in sorted(wanted):
        with store.lock([key[1]], on_wait=lambda _: None, poll=lambda: None):
            if _is_here(store, key):
                moved.n_there += 1
                continue
            try:
                _take(store, other, key, moved)
            except (Damaged, FileNotFoundError) as error:
                moved.damaged.append(str(error))
    for name in names:
        for file in other.names(_results(name)):
            content = other.read(f"{_results(name)}/{file}")
            replace_bytes(store.root / _results(name) / file, content)
    return moved


def push(store: Store, other: Elsewhere, experiments: Iterable[str] = ()) -> Moved:
    """Copy finished stages from here: all, or those of experiments' results, with these."""
    if other.folder is not None:  # where a stage can be renamed into place
        return pull(Store(other.folder), Elsewhere(str(store.root)), experiments)
    other.begin()
    moved, names = Moved(), list(experiments)
    here = {(one.kind, one.fingerprint): one for one in store.finished()}
    wanted = set(here)
    if names:
        wanted &= _of_results(Elsewhere(str(store.root)), names)
    there = other.stages()
    for key in sorted(wanted):
        if key in there:
            moved.n_there += 1
            continue
        try:
            here[key].check(hashed=True)
        except Damaged as error:
            moved.damaged.append(str(error))
            continue
        files = list(here[key].manifest["files"])
        for name in [*files, MANIFEST]:  # by which it is found, so that it is whole by then
            other.put(here[key].folder / name, f"stages/{key[0]}/{key[1]}/{name}")
        moved.n_stages += 1
        moved.n_bytes += here[key].n_bytes
    for name in names:
        for path in sorted((store.root / _results(name)).iterdir()):
            if path.is_file():
                other.put(path, f"{_results(name)}/{path.name}")
    return moved


def _take(store: Store, other: Elsewhere, key: Key, moved: Moved) -> None:
    """Copy a stage into the store, under its lock."""
    manifest = other.manifest(key)
    _require_inside(manifest["files"], Path(f"{other.url}/stages/{key[0]}/{key[1]}"), key)
    output = store.root / "scratch" / key[1] / store.leases.owner / "output"
    for name, entry in manifest["files"].items():
        path, sha256 = output / name, hashlib.sha256()
        with writing(store.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for chunk in other.chunks(key, name):
                    sha256.update(chunk)
                    file.write(chunk)
        if sha256.hexdigest() != entry["sha256"]:
            store.discard_unfinished(key[1])
            where = Path(f"{other.url}/stages/{key[0]}/{key[1]}/{name}")
            raise Damaged(where, "differs from its checksum", fingerprint=key[1])
    replace_bytes(output / MANIFEST, json.dumps(manifest, indent=1).encode())
    store.leases.require(key[1])
    folder = store.root / "stages" / key[0] / key[1]
    with writing(store.root):
        if folder.exists():  # damaged
            folder.rename(output.with_name("damaged"))
    publish(output, folder)
    store.discard_unfinished(key[1])
    moved.n_stages += 1
    moved.n_bytes += sum(entry["bytes"] for entry in manifest["files"].values())


def _is_of(key: Key, manifest: dict[str, Any]) -> bool:
    """Return whether a manifest is that of a stage; of a kind of another package, if it says so.

    The fingerprint of the latter contains sources that a manifest does not have.
    """
    stated = [manifest.get(name) for name in ("kind", "version", "settings", "inputs")]
    is_ours = Path(stages.__file__).with_name(f"{key[0]}.py").exists()
    return stated[0] == key[0] and (not is_ours or digest(stated) == key[1])


def _require_inside(names: Iterable[str], folder: Path, key: Key) -> None:
    """Refuse names of files that lie outside of the stage's folder.

    Raises:
        Damaged: one does.
    """
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise Damaged(folder, f"names a file {name!r} outside of it", fingerprint=key[1])


def _is_here(store: Store, key: Key) -> bool:
    """Return whether a stage is here, and intact."""
    folder = store.root / "stages" / key[0] / key[1]
    try:
        if not folder.is_dir():
            return False
        Finished(folder, read_manifest(folder)).check(hashed=True)
    except Damaged:
        return False
    return True


def _of_results(store: Elsewhere, names: list[str]) -> set[Key]:
    """Return the stages that experiments' rows are made of; a role is a kind, but for students.

    An imported student fills the same role as one that was trained.
    """
    found = set[Key]()
    for name in names:
        for row in _rows(store, name):
            for role, fingerprint in row["stages"].items():
                found.add((role, fingerprint))
                if role == "student":
                    found.add(("imported", fingerprint))
    return found


def _results(name: str) -> str:
    """Return the folder of an experiment's results in a store."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise NotReady(f"{name}: must be the name of an experiment, but is a path; correct it")
    return f"results/{name}"


def _rows(store: Elsewhere, name: str) -> list[dict[str, Any]]:
    """Return the rows of an experiment's results."""
    try:
        content = store.read(f"{_results(name)}/{RESULTS_FILE}")
    except FileNotFoundError as error:
        raise NotReady(
            f"{store.url}: must have results of {name}, but has none; name an experiment that was "
            "swept there, or leave it out for all stages"
        ) from error
    rows: list[dict[str, Any]] = json.loads(content)["rows"]
    return rows
