"""Files that are complete or absent: written under a temporary name, then renamed."""

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spar_bench.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_CLOSED = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    errno.ENOENT,  # in folders where no one can create files, such as /proc
}
_LEFT_BY_A_KILL = ".*.tmp"


def replace_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it into place; raises as `writing`."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename it into place; raises as `writing`."""
    # Several processes, even on several hosts, may write one file at once: each has its own name.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # else a power cut may leave the name without the contents
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sweep_up(folder: Path) -> None:
    """Delete what killed writers left below a folder that no one else is writing to."""
    for path in folder.rglob(_LEFT_BY_A_KILL):
        path.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn "no space" and "not permitted" under `folder` into one line with a way out.

    Raises:
        StoreError: the disk is full, or the folder is not writable.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                f"{folder}: must have free space, but the disk is full; finished work is kept: "
                "free some space and run the same command again"
            ) from error
        if error.errno in _CLOSED:
            raise StoreError(
                f"{folder}: must be a writable folder, but writing failed "
                f"({error.strerror or error}: "
                f"{error.filename}); choose another one"
            ) from error
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StoreError: the file cannot be read, or is not a JSON object.
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


def file_sha256(path: Path) -> str:
    """Read a file and return the SHA-256 of its bytes as 64 hex digits.

    `digests` remembers that of files which the user keeps.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
