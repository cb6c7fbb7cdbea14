"""Files that are complete or absent: written under a temporary name, then renamed."""

import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spar_bench.errors import StoreError, Unreadable

_FULL = {errno.ENOSPC, errno.EDQUOT}
_BROKEN = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV}
_TEMPORARY = ".*.tmp"
YAML_ENDINGS = (".yaml", ".yml")


def is_address(place: str | os.PathLike[str]) -> bool:
    """Return whether a place is an address such as s3://BUCKET, though `Path` has read it."""
    return re.match(r"\w[\w+.-]+:/", os.fspath(place)) is not None


def local(folder: Path) -> Path:
    """Return a folder's path as it is.

    Raises:
        StoreError: it is an address such as s3://BUCKET, of which `Path` has made one slash.
    """
    if is_address(folder):
        raise StoreError(
            f"{folder}: must be a folder, but is an address; give a folder here, and copy to an "
            "address, such as s3://BUCKET/FOLDER, by spar-bench push"
        )
    return folder


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


def publish(folder: Path, name: Path) -> bool:
    """Rename a folder that is complete; return False if another has that name, and keeps it.

    Raises as `writing`.
    """
    with writing(name.parent):
        name.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(folder, name)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
    return True


def subfolders(folder: Path) -> list[Path]:
    """Return a folder's subfolders, sorted; unlike `Path.glob`, raise if it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []


def bytes_in(folder: Path) -> int:
    """Return the size of all files below a folder, 0 if there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def link(path: Path, name: Path) -> None:
    """Give a complete file a second name, or copy it where the file system cannot.

    Another file of that name is replaced; raises as `writing`.
    """
    with writing(name.parent):
        name.unlink(missing_ok=True)
        try:
            os.link(path, name)
        except OSError:
            replace_bytes(name, path.read_bytes())


def delete_temporary(folder: Path) -> None:
    """Delete what killed writers left below a folder that no one else is writing to."""
    for path in folder.rglob(_TEMPORARY):
        path.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn every error of the file system under `folder` into one line with a way out.

    Raises:
        StoreError: the disk is full or broken, a file may not be as large, or the folder is not
            writable.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            rule = "must have free space, but the disk is full; finished work is kept: free some"
            text = f"{rule} space and run the same command again"
        elif error.errno == errno.EFBIG:
            text = (
                "must take files of any size, but this process's limit is reached; finished work "
                "is kept: raise the limit (`ulimit -f`) and run the same command again"
            )
        elif error.errno in _BROKEN:
            text = (
                f"must be on a working disk, but writing failed ({_reason(error)}); finished work "
                "is kept: run the same command again once the disk or its server works"
            )
        else:
            text = (
                f"must be a writable folder, but writing failed ({_reason(error)}); choose another "
                "one"
            )
        raise StoreError(f"{folder}: {text}") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error in reading a file or a folder that exists into one line with a way out.

    Raises:
        Unreadable: it cannot be read. A file that is missing keeps its FileNotFoundError.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(
            f"{path}: must be readable, but reading failed ({_reason(error)}); nothing was "
            "changed: mend its permissions or the disk and run the same command again"
        ) from error


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{reason}: {error.filename}" if error.filename else reason


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Unreadable: the file is there, but cannot be read now.
        StoreError: it is missing, or is not a JSON object.
    """
    try:
        with reading(path):
            value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
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


def cache_folder() -> Path:
    """Return the folder for what is only remembered to save time; created if need be.

    Raises:
        OSError: it cannot be created.
        RuntimeError: there is no home folder.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "spar-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
