"""The record of finished work: one folder per stage, named by fingerprint, once complete.

    <root>/store.json                    the format of the store
    <root>/stages/<kind>/<fingerprint>/  files of a finished stage, and manifest.json
    <root>/scratch/<fingerprint>/        unfinished work; survives a kill: the next attempt resumes
    <root>/failures/<fingerprint>.json   why the last attempt failed
    <root>/locks/<fingerprint>           held by whoever is making the stage
    <root>/results/<experiment>/         what its report is written from; a sweep rewrites it
    <root>/studies/<hash>.journal        what a search has tried
    <root>/pictures/<key>/               drawn for MLflow; redrawn if missing

A finished stage is renamed into place after its manifest (files, sizes, SHA-256, and its own) is
written, so a folder under `stages/` means complete. Nothing is pickled.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from spar_bench.errors import StoreError
from spar_bench.files import file_sha256, read_json, replace_text, sweep_up, writing
from spar_bench.stage import (
    MANIFEST,
    Damaged,
    Finished,
    canonical,
    digest,
    forget_verified,
    read_manifest,
)
from spar_bench.stages.base import Stage, Summary

FORMAT = 2
DEFAULT_ROOT = Path(".spar_bench")
HASH_WHOLE_BYTES = 64 << 20
"""A stage up to this size is hashed when first opened; a larger one file by file when read."""
_OUTPUT = "output"


class Store:
    """The store under one folder; created if missing, unless it is only read.

    Raises:
        StoreError: the folder is not writable, or is a store of another format.
    """

    def __init__(self, root: Path = DEFAULT_ROOT, *, make: bool = True) -> None:
        self.root = root.absolute()
        marker = self.root / "store.json"
        with writing(self.root):
            if make:
                self._make(marker)
            found = read_json(marker).get("format") if make or _is_there(marker) else FORMAT
        if found != FORMAT:
            kind = "none" if found is None else f"format {found!r}"
            raise StoreError(
                f"{self.root}: must be a store of format {FORMAT}, but is of {kind}; "
                "keep it for the release that made it and give a new folder by --store, or delete "
                "it"
            )

    def _make(self, marker: Path) -> None:
        for name in ("stages", "scratch", "failures", "locks"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            replace_text(marker, canonical({"format": FORMAT}))

    def find(self, stage: Stage) -> Finished | None:
        """Return a finished stage, or None if it is not made.

        Raises:
            Damaged: it exists, but is not intact.
        """
        folder = self.root / "stages" / stage.kind / stage.fingerprint
        return self._open(folder) if folder.is_dir() else None

    def find_by_fingerprint(self, fingerprint: str) -> Finished | None:
        """Return a finished stage of any kind, or None; raises as `find` does."""
        folder = next((self.root / "stages").glob(f"*/{fingerprint}"), None)
        return self._open(folder) if folder is not None and folder.is_dir() else None

    def finished(self) -> Iterator[Finished]:
        """Yield every finished stage without checking files; `unreadable` reports the others."""
        for folder in self._folders():
            with suppress(Damaged):
                yield Finished(folder, read_manifest(folder))

    def unreadable(self) -> Iterator[Damaged]:
        """Yield what is wrong with each stage whose manifest is missing or damaged."""
        for folder in self._folders():
            try:
                read_manifest(folder)
            except Damaged as damage:
                yield damage

    def scratch(self, stage: Stage) -> Path:
        """Return the folder of a stage's unfinished work, created if needed."""
        folder = self.root / "scratch" / stage.fingerprint
        with writing(self.root):
            (folder / _OUTPUT).mkdir(parents=True, exist_ok=True)
        return folder

    def output(self, stage: Stage) -> Path:
        """Return the folder of a stage's files so far; `finish` makes it the finished stage."""
        return self.scratch(stage) / _OUTPUT

    def forget_scratch(self, fingerprint: str) -> None:
        """Delete a stage's unfinished work, so that the next attempt starts over."""
        shutil.rmtree(self.root / "scratch" / fingerprint, ignore_errors=True)

    def left_off(self) -> dict[str, int]:
        """Return the bytes of unfinished work that nobody is doing now, by fingerprint."""
        sizes = {}
        for folder in sorted((self.root / "scratch").glob("*")):
            with suppress(Timeout), FileLock(self.root / "locks" / folder.name, timeout=0):
                sizes[folder.name] = _n_bytes(folder)
        return sizes

    def pictures_bytes(self) -> int:
        """Return the size of the pictures, which are redrawn if missing."""
        return _n_bytes(self.root / "pictures")

    def forget_pictures(self) -> None:
        """Delete the pictures."""
        shutil.rmtree(self.root / "pictures", ignore_errors=True)

    def finish(self, stage: Stage, *, summary: Summary, made: dict[str, Any]) -> Finished:
        """Turn a stage's `scratch/.../output` into the finished stage.

        `summary` is the stage's summary of its result; `made` is how it was made (seconds, device,
        versions): recorded, not hashed.
        """
        scratch = self.scratch(stage)
        output = scratch / _OUTPUT
        sweep_up(output)
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
            "settings": stage.settings.model_dump(mode="json"),
            "inputs": stage.inputs,
            "files": files,
            "summary": summary.model_dump(mode="json"),
            "made": made,
        }
        manifest["sha256"] = digest(manifest)
        replace_text(output / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False))
        folder = self.root / "stages" / stage.kind / stage.fingerprint
        with writing(self.root):
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.replace(output, folder)
            shutil.rmtree(scratch, ignore_errors=True)
            self._failure_path(stage).unlink(missing_ok=True)
        return Finished(folder, manifest)

    def discard(self, fingerprint: str) -> None:
        """Delete a finished stage, so that the next look finds it missing; not one being made."""
        for folder in (self.root / "stages").glob(f"*/{fingerprint}"):
            with (
                suppress(Timeout),
                FileLock(self.root / "locks" / fingerprint, timeout=0),
                writing(self.root),
            ):
                forget_verified(folder)
                shutil.rmtree(folder)

    def reopen(self, stage: Stage) -> str:
        """Turn a damaged stage back into unfinished work; return what is wrong, "" if it is intact.

        Its intact files are kept: a maker that resumes makes only the others. Every checksum is
        verified again. To be called under the stage's lock.
        """
        folder = self.root / "stages" / stage.kind / stage.fingerprint
        forget_verified(folder)
        try:
            finished = self.find(stage)
            if finished is not None:
                finished.check(hashed=True)
            return ""
        except Damaged as damage:
            with writing(self.root):
                self.forget_scratch(stage.fingerprint)
                _delete_damaged_files(folder)
                os.replace(folder, self.output(stage))
            return str(damage)

    def fail(self, stage: Stage, reason: str, *, outcome: str, final: bool) -> None:
        """Record why a stage failed; `final`: it would fail again, so only `--retry` repeats it."""
        words = {"reason": reason, "outcome": outcome, "final": final}
        replace_text(
            self._failure_path(stage), canonical({**words, "at_ms": time.time_ns() // 1_000_000})
        )

    def failure(self, stage: Stage) -> dict[str, Any] | None:
        """Return `{reason, outcome, final, at_ms}` of a stage's last attempt, or None.

        An unreadable record counts as none: the stage is tried again.
        """
        path = self._failure_path(stage)
        with suppress(StoreError):
            return read_json(path) if path.exists() else None
        return None

    @contextmanager
    def lock(
        self, names: Iterable[str], *, on_wait: Callable[[str], None], poll: Callable[[], None]
    ) -> Iterator[None]:
        """Hold the locks of several stages, in sorted order so that two sweeps cannot deadlock.

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
        finished = Finished(folder, read_manifest(folder))
        finished.check(hashed=finished.n_bytes <= HASH_WHOLE_BYTES and not finished.is_verified)
        return finished

    def _folders(self) -> list[Path]:
        return sorted(path for path in (self.root / "stages").glob("*/*") if path.is_dir())

    def _failure_path(self, stage: Stage) -> Path:
        return self.root / "failures" / f"{stage.fingerprint}.json"


def _n_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _is_there(path: Path) -> bool:
    """Tell whether a file exists; unlike `Path.exists`, raise if its folder is a file."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _delete_damaged_files(folder: Path) -> None:
    """Delete a stage's manifest and all files that it does not vouch for."""
    try:
        files = read_manifest(folder)["files"]
    except Damaged:
        files = {}
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        entry = files.get(str(path.relative_to(folder)))
        if entry is None or file_sha256(path) != entry["sha256"]:
            path.unlink()
