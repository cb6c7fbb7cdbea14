"""A finished stage: its folder of files, checked against its manifest."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from spar_bench.errors import StoreError, Unreadable
from spar_bench.files import delete_temporary, file_sha256, read_json, reading

if TYPE_CHECKING:
    from spar_bench.stages.base import Stage, Summary

MANIFEST = "manifest.json"

Model = TypeVar("Model", bound=BaseModel)


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value as 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


class Damaged(StoreError):
    """A file of a finished stage is missing, truncated or altered."""

    def __init__(self, path: Path | str, detail: str, *, fingerprint: str) -> None:
        self.path, self.detail, self.fingerprint = path, detail, fingerprint
        super().__init__(f"{path}: must be as it was written, but {detail}; a sweep makes it again")


@dataclass(frozen=True)
class Finished:
    """A finished stage: its folder and its manifest.

    It remembers which files were found to be as they were written.
    """

    folder: Path
    manifest: dict[str, Any]
    _verified: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """The stage's fingerprint."""
        return self.folder.name

    @property
    def place(self) -> str:
        """Where it is, for a reader."""
        return str(self.folder)

    @property
    def summary(self) -> dict[str, Any]:
        """The stage's summary of its result, as JSON."""
        return dict(self.manifest["summary"])

    def summary_as(self, kind: type[Model]) -> Model:
        """Return the stage's summary as its kind's type."""
        return kind.model_validate(self.manifest["summary"])

    @property
    def kind(self) -> str:
        """The kind of stage that it is."""
        return str(self.manifest["kind"])

    @property
    def plugins(self) -> dict[str, dict[str, str]]:
        """The source of the built-in plug-ins that made it, as `plugin_code` records it."""
        return dict(self.manifest["made"].get("plugins", {}))

    @property
    def n_bytes(self) -> int:
        """Size of the stage's files."""
        return sum(entry["bytes"] for entry in self.manifest["files"].values())

    @property
    def is_verified(self) -> bool:
        """Whether every file was checked against its checksum."""
        return all(name in self._verified for name in self.manifest["files"])

    def path(self, name: str) -> Path:
        """Return a file of the stage, its checksum verified the first time it is asked for.

        Raises:
            Damaged: the file is missing, truncated or altered.
            Unreadable: it is there, but cannot be read now.
        """
        if name not in self._verified:
            self._check(name, hashed=True)
        return self.folder / name

    def check(self, *, hashed: bool) -> None:
        """Check every file's size and, if `hashed`, its SHA-256; raises as `path`, at the first."""
        for name in self.manifest["files"]:
            self._check(name, hashed=hashed)

    def _check(self, name: str, *, hashed: bool) -> None:
        path, expected = self.folder / name, self.manifest["files"][name]
        try:
            with reading(path):
                n_bytes = path.stat().st_size
                sha256 = file_sha256(path) if hashed and n_bytes == expected["bytes"] else None
        except FileNotFoundError as error:
            raise Damaged(path, "is missing", fingerprint=self.fingerprint) from error
        if n_bytes != expected["bytes"]:
            detail = f"has {n_bytes} bytes instead of {expected['bytes']}"
            raise Damaged(path, detail, fingerprint=self.fingerprint)
        if hashed:
            if sha256 != expected["sha256"]:
                raise Damaged(path, "differs from its checksum", fingerprint=self.fingerprint)
            self._verified.add(name)


def manifest_of(
    stage: "Stage", output: Path, *, summary: "Summary", made: dict[str, Any]
) -> dict[str, Any]:
    """Return what describes the files of a stage that is complete."""
    delete_temporary(output)
    files = {
        str(path.relative_to(output)): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
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
    return {**manifest, "sha256": digest(manifest)}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished stage, checked against its own checksum.

    Raises:
        Damaged: it is missing, or was altered.
        Unreadable: it is there, but cannot be read now.
    """
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
        is_intact = has_own_checksum(manifest)
    except Unreadable:
        raise
    except (StoreError, ValueError) as error:  # JSON has no NaN, but Python reads one
        raise Damaged(path, "is missing or no JSON", fingerprint=folder.name) from error
    if not is_intact:
        raise Damaged(path, "differs from its checksum", fingerprint=folder.name)
    return manifest


def has_own_checksum(manifest: dict[str, Any]) -> bool:
    """Return whether a manifest is as it was written; raise ValueError if it holds a NaN."""
    stated = digest({key: value for key, value in manifest.items() if key != "sha256"})
    return manifest.get("sha256") == stated


def delete_damaged_files(folder: Path) -> None:
    """Delete a stage's manifest and all files that it does not vouch for."""
    try:
        files = read_manifest(folder)["files"]
    except Damaged:
        files = {}
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        entry = files.get(str(path.relative_to(folder)))
        if entry is None or file_sha256(path) != entry["sha256"]:
            path.unlink()
