"""Writing whole files: nothing half-written is left, and a full disk is one clear line."""

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from spar_bench.errors import StoreError, Unreadable
from spar_bench.files import (
    delete_temporary,
    read_json,
    reading,
    replace_bytes,
    replace_text,
    writing,
)


def refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number), "somewhere")


def test_file_is_replaced_whole_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"

    replace_text(path, "one")
    replace_text(path, "zwei, größer")

    assert path.read_text(encoding="utf-8") == "zwei, größer"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_said_and_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "kept"
    replace_bytes(path, b"old")
    real_write = Path.write_bytes

    def half(self: Path, content: bytes) -> int:
        real_write(self, content[:2])
        refuse(number)

    monkeypatch.setattr(Path, "write_bytes", half)

    with pytest.raises(StoreError, match=r"the disk is full; finished work is kept: free"):
        replace_bytes(path, b"newer")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("kept", b"old")]


def test_file_in_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")

    with pytest.raises(StoreError, match="must be a writable folder"):
        replace_text(tmp_path / "taken" / "file", "x")


def test_folder_that_takes_no_files_is_said() -> None:
    with pytest.raises(StoreError, match=r"^/proc: must be a writable .*No such file or directory"):
        replace_text(Path("/proc/spar_bench"), "x")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EIO, r"must be on a working disk, .*\(Input/output error: .*; run the same|once"),
        (errno.ESTALE, "must be on a working disk, "),
        (errno.EFBIG, "must take files of any size, but this process's limit is reached; .*ulimit"),
        (errno.EACCES, r"must be a writable folder, but writing failed \(Permission denied: some"),
    ],
)
def test_every_error_of_writing_is_one_line_with_a_way_out(
    tmp_path: Path, number: int, message: str
) -> None:
    with pytest.raises(StoreError, match=message) as caught, writing(tmp_path):
        raise OSError(number, os.strerror(number), "somewhere")
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_not_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"x: must be readable, .*Stale file"), reading(Path("x")):
        refuse(errno.ESTALE)
    with pytest.raises(FileNotFoundError), reading(tmp_path):
        refuse(errno.ENOENT)
    (tmp_path / "loop.json").symlink_to("loop.json")
    with pytest.raises(Unreadable, match=r"loop\.json: must be readable, but reading failed"):
        read_json(tmp_path / "loop.json")


def test_what_a_killed_writer_left_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".file.safetensors.0a1b.tmp").write_text("half")
    (tmp_path / "deep" / "file.tmp").write_text("whole")

    delete_temporary(tmp_path)

    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file.tmp"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_what_is_no_json_object_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(StoreError, match=r"x\.json: must be"):
        read_json(path)
