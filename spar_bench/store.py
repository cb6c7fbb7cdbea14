"""The record of finished work: one folder per stage, named by fingerprint, once complete.

    <root>/store.json                     the format of the store
    <root>/stages/<kind>/<fingerprint>/   files of a finished stage, and manifest.json
    <root>/scratch/<fingerprint>/<owner>/ unfinished work; survives a kill: the next owner adopts it
    <root>/scratch/<fingerprint>/parts-*/ parts of it that any process may make (`run/parts.py`)
    <root>/failures/<fingerprint>.json    why the last attempt failed; in .log, what it said
    <root>/leases/                        who makes which stage, and who uses the store
    <root>/results/<experiment>/          what its report is written from; a sweep rewrites it
    <root>/studies/<hash>.journal         what a search has tried; .json: the database that knows
    <root>/pictures/<key>/                drawn for MLflow; redrawn if missing
    <root>/plans/<hash>.json              what worker processes read; `cache gc` deletes them
    <root>/progress/<owner>.json          what a sweep does now, for `status`

A finished stage is renamed into place after its manifest (files, sizes, SHA-256, and its own) is
written, so a folder under `stages/` means complete. Such a rename never replaces a finished stage,
so that of two processes which make one stage, on whatever hosts, one publishes and the other finds
it (`leases.py` says when that may happen). Nothing is pickled.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from spar_bench.errors import LeaseLost, StoreError
from spar_bench.failures import Failure, Failures
from spar_bench.files import (
    bytes_in,
    local,
    publish,
    read_json,
    reading,
    replace_text,
    subfolders,
    writing,
)
from spar_bench.leases import LEASE_S, Host, Leases
from spar_bench.scratch import adopt
from spar_bench.shelf import Shelf
from spar_bench.stage import (
    MANIFEST,
    Damaged,
    Finished,
    canonical,
    delete_damaged_files,
    manifest_of,
    read_manifest,
)
from spar_bench.stages.base import Stage, Summary

FORMAT = 2
DEFAULT_ROOT = Path(".spar_bench")
MARKER, _OUTPUT = "store.json", "output"
_GATE, _USE = "gate", "use-"


class Store(Shelf):
    """The store under one folder; created if missing, unless it is only read.

    A process that is not heard of for `lease_s` keeps nothing; tests play several hosts by `host`.
    `leases` are those of all who share the store, `here` those of all who share the folder.

    Raises:
        StoreError: the folder is not writable, or is a store of another format.
    """

    is_shared_by_folder = True
    """Whether all who share the store see its folder."""

    def __init__(
        self,
        root: Path = DEFAULT_ROOT,
        *,
        make: bool = True,
        lease_s: float = LEASE_S,
        host: Host | None = None,
    ) -> None:
        super().__init__(local(root).absolute())
        self.leases = self.here = Leases(self.root / "leases", lease_s, host)
        self.failures = Failures(self.root / "failures")
        marker = self.root / MARKER
        with writing(self.root):
            found = read_json(marker).get("format") if is_store(self.root) else FORMAT
        if found != FORMAT:  # before anything is written there
            kind = "none" if found is None else f"format {found!r}"
            raise StoreError(
                f"{self.root}: must be a store of format {FORMAT}, but is of {kind}; "
                "keep it for the release that made it and give another by --store, or delete it"
            )
        if make:
            with writing(self.root):
                self._make(marker)

    def _make(self, marker: Path) -> None:
        for name in ("stages", "scratch", "failures", "leases"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            replace_text(marker, canonical({"format": FORMAT}))

    def is_being_made(self, fingerprint: str) -> bool:
        """Return whether a process makes a stage now, on whatever host."""
        return self.leases.is_held(fingerprint)

    def is_made_here(self, fingerprint: str) -> bool:
        """Return whether a process makes a stage now in this folder, where its parts are."""
        return self.here.is_held(fingerprint)

    @property
    def place(self) -> str:
        """Where it is, for a reader."""
        return str(self.root)

    @property
    def results(self) -> Path:
        """The folder of what sweeps leave for reports, by experiment."""
        return self.root / "results"

    def share_results(self) -> None:
        """Let all who share the store see what was written of results; in a folder, they do."""

    def note(self, name: str) -> dict[str, Any] | None:
        """Return what was noted under a name for all who share the store, or None."""
        path = self.root / name
        return read_json(path) if path.exists() else None

    def write_note(self, name: str, value: dict[str, Any]) -> None:
        """Note a JSON object under a name for all who share the store."""
        replace_text(self.root / name, canonical(value))

    def scratch(self, stage: Stage) -> Path:
        """Return the folder of this process's unfinished work on a stage, created if needed.

        Under the stage's lock, it is the newest work that earlier owners left unfinished.

        Raises:
            LeaseLost: the lock was found to be lost.
        """
        self.leases.require_unbroken()
        folder = self.root / "scratch" / stage.fingerprint / self.leases.owner
        with writing(self.root):
            if not folder.exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                if self.leases.is_own(stage.fingerprint):
                    adopt(folder)
            (folder / _OUTPUT).mkdir(parents=True, exist_ok=True)
        return folder

    def output(self, stage: Stage) -> Path:
        """Return the folder of a stage's files so far; `finish` makes it the finished stage."""
        return self.scratch(stage) / _OUTPUT

    def discard_unfinished(self, fingerprint: str) -> None:
        """Delete a stage's unfinished work, so that the next attempt starts over."""
        shutil.rmtree(self.root / "scratch" / fingerprint, ignore_errors=True)

    def unfinished(self) -> dict[str, int]:
        """Return the bytes of unfinished work that nobody is doing now, by fingerprint."""
        with reading(self.root):
            return {
                folder.name: bytes_in(folder)
                for folder in subfolders(self.root / "scratch")
                if not self.leases.is_held(folder.name)
            }

    def pictures_bytes(self) -> int:
        """Return the size of the pictures, which are redrawn if missing."""
        return bytes_in(self.root / "pictures")

    def discard_rewritten(self) -> None:
        """Delete pictures and the plans of worker processes, while nobody uses the store."""
        for name in ("pictures", "plans"):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def finish(self, stage: Stage, *, summary: Summary, made: dict[str, Any]) -> Finished:
        """Turn a stage's `output` into the finished stage, and return it, under the stage's lock.

        If another process has published it meanwhile, that one's is returned. `summary` is the
        stage's summary of its result; `made` is how it was made (seconds, device, versions):
        recorded, not hashed.

        Raises:
            LeaseLost: another process has taken over, and publishes it.
        """
        output = self.output(stage)
        manifest = manifest_of(stage, output, summary=summary, made=made)
        replace_text(output / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False))
        return self.admit((stage.kind, stage.fingerprint), output, manifest)

    def admit(self, key: tuple[str, str], output: Path, manifest: dict[str, Any]) -> Finished:
        """Turn a complete folder into the finished stage of a kind and fingerprint, as `finish`."""
        self.leases.require(key[1])
        manifest = self._publish(key, output, manifest)
        with writing(self.root):
            self.discard_unfinished(key[1])
            self.failures.forget(key[1])
        return Finished(self.root.joinpath("stages", *key), manifest)

    def _publish(
        self, key: tuple[str, str], output: Path, manifest: dict[str, Any]
    ) -> dict[str, Any]:
        """Rename a complete folder into place; return the manifest of what is there then."""
        folder = self.root.joinpath("stages", *key)
        return manifest if publish(output, folder) else read_manifest(folder)

    def discard(self, fingerprint: str) -> None:
        """Delete a finished stage, so that the next look finds it missing; not one being made."""
        for folder in (kind / fingerprint for kind in self._kinds()):
            if folder.is_dir():
                with self.leases.hold_free([fingerprint]) as own, writing(self.root):
                    if own:
                        shutil.rmtree(folder)

    def reopen(self, stage: Stage) -> str:
        """Turn a damaged stage back into unfinished work; return what is wrong, "" if it is intact.

        Its intact files are kept: a maker that resumes makes only the others. Every checksum is
        verified again.

        Raises:
            LeaseLost: it is damaged, but this process does not hold the stage's lock.
        """
        folder = self.root / "stages" / stage.kind / stage.fingerprint
        self._close(folder)
        try:
            if self.find(stage) is not None:
                Finished(folder, read_manifest(folder)).check(hashed=True)
            return ""
        except Damaged as damage:
            self.leases.require(stage.fingerprint)
            with writing(self.root):
                self.discard_unfinished(stage.fingerprint)
                delete_damaged_files(folder)
                os.replace(folder, self.output(stage))
            return str(damage)

    def fail(
        self,
        stage: Stage,
        reason: str,
        *,
        outcome: Literal["failed", "pruned"],
        final: bool,
        where: str = "",
    ) -> None:
        """Record why and where a stage failed, under its lock.

        `final`: it would fail again, so only `--retry` repeats it.

        Raises:
            LeaseLost: another process has taken over.
        """
        self.leases.require(stage.fingerprint)
        self.failures.write(stage.fingerprint, reason, outcome=outcome, final=final, where=where)

    def failure(self, stage: Stage) -> Failure | None:
        """Return why a stage's last attempt failed, or None; raises as `Failures.read`."""
        return self.failures.read(stage.fingerprint)

    @contextmanager
    def lock(
        self, names: Iterable[str], *, on_wait: Callable[[str], None], poll: Callable[[], None]
    ) -> Iterator[None]:
        """Hold the leases of several stages, in sorted order so that two sweeps cannot deadlock.

        `on_wait` is called once with the name that is held elsewhere; `poll` at least twice a
        second while waiting, and may raise.

        Raises:
            LeaseLost: the block failed after another process had taken over one of the stages;
                this one's unfinished work on them is deleted.
        """
        held = sorted(set(names))
        with self._tidying(held), self.leases.hold(held, on_wait=on_wait, poll=poll):
            yield

    @contextmanager
    def lock_free(self, names: Iterable[str]) -> Iterator[set[str]]:
        """Hold the leases of those stages that no other has; yields them, raises as `lock`."""
        wanted = sorted(set(names))
        with self._tidying(wanted), self.leases.hold_free(wanted) as own:
            yield own

    @contextmanager
    def _tidying(self, names: list[str]) -> Iterator[None]:
        try:
            yield
        except LeaseLost:
            for name in names:
                own = self.root / "scratch" / name / self.leases.owner
                shutil.rmtree(own, ignore_errors=True)
            raise

    @contextmanager
    def in_use(self, *, on_wait: Callable[[str], None], poll: Callable[[], None]) -> Iterator[None]:
        """Keep `unused` from being entered while this block runs, on whatever host."""
        with ExitStack() as shown:
            with self.leases.hold([_GATE], on_wait=on_wait, poll=poll):
                shown.enter_context(self.leases.show(f"{_USE}{self.leases.owner}"))
            yield

    def lease_of_use(self, owner: str) -> Path:
        """Return the lease that an owner of leases holds in a block of `in_use`."""
        return self.root / "leases" / f"{_USE}{owner}"

    @contextmanager
    def unused(self) -> Iterator[None]:
        """Keep others from starting to use the store, so that what they read can be deleted.

        Raises StoreError if a process uses it now.
        """
        with self.leases.hold([_GATE], on_wait=lambda _: None, poll=lambda: None):
            for name in self.leases.names(_USE):
                if self.leases.is_alive(name):
                    raise StoreError(
                        f"{self.root}: must not be in use while finished work is deleted, but "
                        f"{self.leases.owner_of(name)} runs a sweep on it; wait until it has ended"
                    )
            yield


def is_store(root: Path) -> bool:
    """Tell whether a folder is a store, of whatever format; raise if it is a file."""
    try:
        (root / MARKER).stat()
    except FileNotFoundError:
        return False
    return True
