"""The record of finished work: one folder a stage, named by its fingerprint, there only when complete.

    <root>/store.json                    the format of the store
    <root>/stages/<kind>/<fingerprint>/  files of a finished stage, and manifest.json
    <root>/scratch/<fingerprint>/        work under way; survives a kill, so the next attempt goes on
    <root>/failures/<fingerprint>.json   why the last attempt failed
    <root>/locks/<fingerprint>           held by whoever is making the stage

A finished stage is renamed into place after its manifest (files, sizes, SHA-256) is written, so a
folder under `stages/` means complete. Nothing is pickled.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from spar_bench.errors import StoreError

FORMAT = 1
DEFAULT_ROOT = Path(".spar_bench")
MANIFEST = "manifest.json"
HASH_WHOLE_BYTES = 64 << 20
"""A stage up to this size is hashed whole when first opened; a larger one file by file as read."""


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value as 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass(frozen=True)
class Stage:
    """A piece of work, decided wholly by its kind, version, settings and inputs.

    `settings` is JSON; `inputs` maps a role to the fingerprint of the stage that fills it; `how` is
    what its maker needs beside, such as where files lie: it decides nothing.
    """

    kind: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the stage, as 64 hex digits."""
        return digest([self.kind, self.version, self.settings, self.inputs])


class Damaged(StoreError):
    """A file of a finished stage is missing, truncated or altered."""

    def __init__(self, fingerprint: str, detail: str) -> None:
        self.fingerprint = fingerprint
        super().__init__(f"store: stage {fingerprint[:12]}: {detail}")


@dataclass(frozen=True)
class Finished:
    """A finished stage: its folder and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """The stage's fingerprint."""
        return self.folder.name

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage said of its result, as JSON."""
        return dict(self.manifest["summary"])

    @property
    def n_bytes(self) -> int:
        """Size of the stage's files."""
        return sum(entry["bytes"] for entry in self.manifest["files"].values())

    def path(self, name: str) -> Path:
        """Return a file of the stage, its checksum verified the first time this process asks.

        Raises:
            Damaged: the file is missing, truncated or altered.
        """
        path = self.folder / name
        if path not in _verified:
            self._check(name, hashed=True)
            _verified.add(path)
        return path

    def check(self, *, hashed: bool) -> None:
        """Check every file's size and, if `hashed`, its SHA-256.

        Raises:
            Damaged: at the first file that is missing, truncated or altered.
        """
        for name in self.manifest["files"]:
            self._check(name, hashed=hashed)
            if hashed:
                _verified.add(self.folder / name)

    def _check(self, name: str, *, hashed: bool) -> None:
        path, expected = self.folder / name, self.manifest["files"][name]
        if not path.is_file():
            raise Damaged(self.fingerprint, f"{name} is missing")
        if path.stat().st_size != expected["bytes"]:
            raise Damaged(
                self.fingerprint,
                f"{name} has {path.stat().st_size} bytes, but the manifest says {expected['bytes']}",
            )
        if hashed and file_sha256(path) != expected["sha256"]:
            raise Damaged(self.fingerprint, f"{name} differs from its checksum")


_verified: set[Path] = set()


class Store:
    """The store under one folder; made if it is not there.

    Raises:
        StoreError: the folder cannot be written, or is a store of another format.
    """

    def __init__(self, root: Path = DEFAULT_ROOT) -> None:
        self.root = root.absolute()
        marker = self.root / "store.json"
        with writing(self.root):
            for name in ("stages", "scratch", "failures", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                replace_text(marker, canonical({"format": FORMAT}))
            found = read_json(marker).get("format")
        if found != FORMAT:
            raise StoreError(
                f"{self.root}: must be a store of format {FORMAT}, but is of format {found!r}; keep it "
                "with the release that made it and give a new folder by --store, or delete it"
            )

    def find(self, stage: Stage) -> Finished | None:
        """Return a finished stage, or None where it is not made.

        Raises:
            Damaged: it is there, but not whole.
        """
        return self.find_by_fingerprint(stage.kind, stage.fingerprint)

    def find_by_fingerprint(self, kind: str, fingerprint: str) -> Finished | None:
        """Return a finished stage by kind and fingerprint, or None; raises as `find` does."""
        folder = self.root / "stages" / kind / fingerprint
        return self._open(folder) if folder.is_dir() else None

    def finished(self) -> Iterator[Finished]:
        """Yield every finished stage, unchecked; a folder without a manifest is left out."""
        for folder in sorted((self.root / "stages").glob("*/*")):
            if (folder / MANIFEST).is_file():
                yield Finished(folder, read_json(folder / MANIFEST))

    def scratch(self, stage: Stage) -> Path:
        """Return the folder of a stage's work under way, made if needed."""
        folder = self.root / "scratch" / stage.fingerprint
        (folder / "output").mkdir(parents=True, exist_ok=True)
        return folder

    def finish(self, stage: Stage, *, summary: dict[str, Any], made: dict[str, Any]) -> Finished:
        """Turn a stage's `scratch/.../output` into the finished stage.

        `summary` is what the stage says of its result; `made` how it was made (seconds, device,
        versions): recorded, not hashed.
        """
        scratch = self.scratch(stage)
        output = scratch / "output"
        files = {
            str(path.relative_to(output)): {
                "bytes": path.stat().st_size,
                "sha256": file_sha256(path),
            }
            for path in sorted(output.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        manifest = {
            "kind": stage.kind,
            "version": stage.version,
            "settings": stage.settings,
            "inputs": stage.inputs,
            "files": files,
            "summary": summary,
            "made": made,
        }
        replace_text(output / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False))
        folder = self.root / "stages" / stage.kind / stage.fingerprint
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(output, folder)
        shutil.rmtree(scratch, ignore_errors=True)
        self._failure_path(stage).unlink(missing_ok=True)
        return Finished(folder, manifest)

    def discard(self, fingerprint: str) -> None:
        """Delete a damaged stage, so that the next look finds it missing."""
        for folder in (self.root / "stages").glob(f"*/{fingerprint}"):
            shutil.rmtree(folder)
            _verified.difference_update({path for path in _verified if folder in path.parents})

    def fail(self, stage: Stage, reason: str, *, outcome: str, final: bool) -> None:
        """Keep why a stage failed; `final`: it would fail again, so only `--retry` repeats it."""
        words = {"reason": reason, "outcome": outcome, "final": final}
        replace_text(
            self._failure_path(stage), canonical({**words, "at_ms": time.time_ns() // 1_000_000})
        )

    def failure(self, stage: Stage) -> dict[str, Any] | None:
        """Return `{reason, outcome, final, at_ms}` of a stage's last attempt, or None."""
        path = self._failure_path(stage)
        return read_json(path) if path.exists() else None

    @contextmanager
    def lock(
        self, names: Iterable[str], *, on_wait: Callable[[str], None], poll: Callable[[], None]
    ) -> Iterator[None]:
        """Hold the locks of several stages, taken in sorted order so that two sweeps cannot deadlock.

        `on_wait` is called once with the name that is held elsewhere; `poll` twice a second while
        waiting, and may raise.
        """
        with ExitStack() as held:
            for name in sorted(set(names)):
                lock = FileLock(self.root / "locks" / name)
                waited = False
                while True:
                    try:
                        held.enter_context(lock.acquire(timeout=0.5 if waited else 0))
                        break
                    except Timeout:
                        if not waited:
                            on_wait(name)
                        waited = True
                        poll()
            yield

    def _open(self, folder: Path) -> Finished:
        manifest_path = folder / MANIFEST
        if not manifest_path.is_file():
            raise Damaged(folder.name, f"{MANIFEST} is missing")
        try:
            finished = Finished(folder, read_json(manifest_path))
            small = finished.n_bytes <= HASH_WHOLE_BYTES
        except (StoreError, KeyError, TypeError) as error:
            raise Damaged(folder.name, f"{MANIFEST} cannot be read") from error
        unverified = small and any(
            folder / name not in _verified for name in finished.manifest["files"]
        )
        finished.check(hashed=unverified)
        return finished

    def _failure_path(self, stage: Stage) -> Path:
        return self.root / "failures" / f"{stage.fingerprint}.json"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it into place."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn "no space" and "not allowed" under `folder` into one line with a way out.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{folder}: must have room to write, but the disk is full; finished work is kept: "
                "free some space and run the same command again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise StoreError(
                f"{folder}: must be a folder that can be written, but {error.strerror or error}: "
                f"{error.filename}; choose another one"
            ) from error
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StoreError: the file is missing, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: must be JSON, but cannot be read: {error}; delete it") from error
    if not isinstance(value, dict):
        raise StoreError(
            f"{path}: must be a JSON object, but is a {type(value).__name__}; delete it"
        )
    return value
