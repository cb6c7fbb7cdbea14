"""Resume state: complete, missing, put aside if corrupt, and never taken for missing."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spar_bench.errors import Unreadable
from spar_bench.run.resume import is_whole, load_state, save_state


def test_resume_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.safetensors"
    state = {"step": 3, "loss": [0.1, 1e-30]}
    tensors = {"a/b": torch.randn(2, 3), "n": torch.tensor(5), "half": torch.randn(4).bfloat16()}

    save_state(path, tensors, state)

    loaded = load_state(path)
    assert loaded is not None
    assert loaded[1] == state
    assert loaded[0].keys() == tensors.keys()
    assert all(torch.equal(loaded[0][name], tensors[name]) for name in tensors)
    assert is_whole(path)


@pytest.mark.parametrize("keep", [0, 4, 8, 60, -1])
def test_truncated_resume_state_is_put_aside_with_a_warning(
    tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.safetensors"
    save_state(path, {"a": torch.randn(20)}, {})
    content = path.read_bytes()[:keep]
    path.write_bytes(content)

    assert not is_whole(path)
    assert load_state(path) is None

    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors.corrupt"]
    assert (tmp_path / "x.safetensors.corrupt").read_bytes() == content
    assert caplog.text.count("x.safetensors: is no resume state") == 1


def test_tensors_without_the_rest_of_the_state_are_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.randn(20)}, path)

    assert load_state(path) is None

    assert (tmp_path / "x.safetensors.corrupt").exists()


def test_missing_resume_state_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path / "x.safetensors") is None
    assert not is_whole(tmp_path / "x.safetensors")


def test_resume_state_that_cannot_be_read_now_is_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.symlink_to(path)  # reading it fails: too many levels of symbolic links

    for read in (load_state, is_whole):
        with pytest.raises(Unreadable, match=r"x\.safetensors: must be readable, but .*symbolic"):
            read(path)
    assert path.is_symlink()
