"""Checkpoints: complete, or treated as missing."""

from pathlib import Path

import pytest
import torch

from spar_bench.run.checkpoint import is_whole, load_checkpoint, save_checkpoint


def test_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.safetensors"
    state = {"step": 3, "loss": [0.1, 1e-30]}
    tensors = {"a/b": torch.randn(2, 3), "n": torch.tensor(5), "half": torch.randn(4).bfloat16()}

    save_checkpoint(path, tensors, state)

    loaded = load_checkpoint(path)
    assert loaded is not None
    assert loaded[1] == state
    assert loaded[0].keys() == tensors.keys()
    assert all(torch.equal(loaded[0][name], tensors[name]) for name in tensors)
    assert is_whole(path)


@pytest.mark.parametrize("keep", [0, 4, 8, 60, -1])
def test_truncated_checkpoint_is_none(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.randn(20)}, {})
    path.write_bytes(path.read_bytes()[:keep])

    assert load_checkpoint(path) is None
    assert not is_whole(path)


def test_missing_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "x.safetensors") is None
    assert not is_whole(tmp_path / "x.safetensors")
