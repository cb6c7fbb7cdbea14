"""The finished stages under one folder, as they are looked up: by stage, fingerprint or kind."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from spar_bench.errors import StoreError, Unreadable
from spar_bench.files import reading, subfolders
from spar_bench.stage import MANIFEST, Damaged, Finished, read_manifest
from spar_bench.stages.base import Stage

HASH_WHOLE_BYTES = 64 << 20
"""A stage up to this size is hashed when first opened; a larger one file by file when read."""
_MOST_FILES_OPEN = 200_000
"""Files of the stages whose manifests are kept in memory: about 100 MB."""


class Shelf:
    """What is under `<root>/stages`; what was found intact is checked again if it is rewritten."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._opened: dict[Path, tuple[tuple[int, int], Finished]] = {}
        self._n_files_open = 0

    def find(self, stage: Stage) -> Finished | None:
        """Return a finished stage, or None if it is not made.

        Raises:
            Damaged: it exists, but is not intact.
        """
        return self._find(self.root / "stages" / stage.kind / stage.fingerprint)

    def has(self, stage: Stage) -> bool:
        """Return whether a stage is finished; a damaged one counts as missing."""
        try:
            return self.find(stage) is not None
        except Damaged:
            return False

    def find_by_fingerprint(self, fingerprint: str) -> Finished | None:
        """Return a finished stage of any kind, or None; raises as `find` does."""
        finished = (self._find(kind / fingerprint) for kind in self._kinds())
        return next((one for one in finished if one is not None), None)

    def opened(self, kind: str, fingerprint: str) -> Finished | None:
        """Return a finished stage; unlike `find`, check each file only when it is read.

        Raises:
            Damaged: its manifest is not intact.
        """
        folder = self.root / "stages" / kind / fingerprint
        return Finished(folder, read_manifest(folder)) if folder.is_dir() else None

    def finished(self, kind: str = "") -> Iterator[Finished]:
        """Yield finished stages, of a kind or all, unchecked; `unreadable` reports the others."""
        for folder in self._folders(kind):
            with suppress(Damaged, Unreadable):
                yield Finished(folder, read_manifest(folder))

    def unreadable(self) -> Iterator[StoreError]:
        """Yield what is wrong with each stage whose manifest is missing, damaged or unreadable."""
        for folder in self._folders():
            try:
                read_manifest(folder)
            except (Damaged, Unreadable) as error:
                yield error

    def _find(self, folder: Path) -> Finished | None:
        """Open a finished stage; its manifest is read again only if it was written again."""
        with reading(self.root):
            try:
                status = (folder / MANIFEST).stat()
            except FileNotFoundError:
                self._close(folder)
                return self._open(folder) if folder.is_dir() else None
        written = status.st_mtime_ns, status.st_size
        known = self._opened.get(folder)
        if known is None or known[0] != written:
            return self._keep_open(folder, written, self._open(folder))
        return known[1]

    def _keep_open(self, folder: Path, written: tuple[int, int], finished: Finished) -> Finished:
        """Keep a stage's manifest in memory, as it was written then; forget the oldest others."""
        self._close(folder)
        self._opened[folder] = written, finished
        self._n_files_open += len(finished.manifest["files"])
        while self._n_files_open > _MOST_FILES_OPEN and len(self._opened) > 1:
            self._close(next(iter(self._opened)))
        return finished

    def _close(self, folder: Path) -> None:
        if folder in self._opened:
            _, finished = self._opened.pop(folder)
            self._n_files_open -= len(finished.manifest["files"])

    def _open(self, folder: Path) -> Finished:
        finished = Finished(folder, read_manifest(folder))
        finished.check(hashed=finished.n_bytes <= HASH_WHOLE_BYTES and not finished.is_verified)
        return finished

    def _kinds(self) -> list[Path]:
        with reading(self.root):
            return subfolders(self.root / "stages")

    def _folders(self, kind: str = "") -> list[Path]:
        kinds = [self.root / "stages" / kind] if kind else self._kinds()
        with reading(self.root):
            return [folder for one in kinds for folder in subfolders(one)]
