"""Files written in the background: whole, in order, and never an unreported error."""

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spar_bench.errors import StoreError
from spar_bench.run import writer
from spar_bench.run.writer import AHEAD, Writer


def test_every_file_is_there_at_the_end_of_the_block(tmp_path: Path) -> None:
    tensors = [torch.rand(2, 3).half() for _ in range(3 * AHEAD)]

    with Writer() as background:
        for index, tensor in enumerate(tensors):
            background.put(tmp_path / f"{index}.safetensors", {"x": tensor})

    for index, tensor in enumerate(tensors):
        assert torch.equal(load_file(tmp_path / f"{index}.safetensors")["x"], tensor)


def write_many(folder: Path, *, then: Exception | None = None) -> None:
    with Writer() as background:
        for index in range(2 * AHEAD):
            background.put(folder / f"{index}.safetensors", {"x": torch.zeros(1)})
            if then is not None:
                raise then


def test_error_of_the_thread_is_raised_in_the_block(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreError, match="must be a writable folder"):
        write_many(tmp_path / "file")


def test_error_of_the_last_file_is_raised_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StoreError), Writer() as background:
        background.put(tmp_path / "file" / "0.safetensors", {"x": torch.zeros(1)})


def test_error_of_the_block_is_the_one_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ZeroDivisionError):
        write_many(tmp_path / "file", then=ZeroDivisionError())


def test_no_more_than_a_few_files_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk, begun = threading.Semaphore(0), threading.Semaphore(0)
    monkeypatch.setattr(writer, "replace_bytes", lambda path, content: disk.acquire())

    def fill() -> None:
        with Writer() as background:
            for _ in range(3 * AHEAD):
                begun.release()
                background.put(tmp_path / "x", {"x": torch.zeros(1)})

    filling = threading.Thread(target=fill)
    filling.start()
    until_full = [begun.acquire(timeout=60) for _ in range(AHEAD + 1)]
    one_more = begun.acquire(timeout=0.3)
    disk.release(3 * AHEAD)
    filling.join(timeout=60)
    others = [begun.acquire(blocking=False) for _ in range(2 * AHEAD)]

    assert all(until_full)
    assert not one_more
    assert not filling.is_alive()
    assert others.count(True) == 2 * AHEAD - 1
