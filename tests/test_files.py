"""Writing whole files: nothing half-written is left, and a full disk is one clear line."""

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from spar_bench.errors import StoreError
from spar_bench.files import read_json, replace_bytes, replace_text, sweep_up, writing


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


def test_other_errors_keep_their_kind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output") as caught, writing(tmp_path):
        refuse(errno.EIO)
    assert not isinstance(caught.value, StoreError)


def test_what_a_killed_writer_left_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".file.safetensors.0a1b.tmp").write_text("half")
    (tmp_path / "deep" / "file.tmp").write_text("whole")

    sweep_up(tmp_path)

    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file.tmp"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_what_is_no_json_object_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(StoreError, match=r"x\.json: must be"):
        read_json(path)
