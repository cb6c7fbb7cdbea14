"""Headers of safetensors files, against the library that writes and reads such files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from spar_bench import registry
from spar_bench.components.header import header_shapes
from tests.small import printed

TENSORS = {
    "a": torch.zeros(2, 3, dtype=torch.bfloat16),
    "scalar": torch.tensor(1.0),
    "empty": torch.zeros(0, 4),
    "bytes": torch.zeros(5, dtype=torch.uint8),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of tensors and metadata."""
    save_file(TENSORS, tmp_path / "w.safetensors", metadata={"format": "pt"})
    return tmp_path / "w.safetensors"


def by_the_library(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes that `safe_open` finds."""
    with safe_open(path, "pt") as file:
        names = file.keys()
        return {name: tuple(file.get_slice(name).get_shape()) for name in names}


def test_shapes_are_those_that_the_library_finds(path: Path) -> None:
    shipped = next(registry.source("backbones", "patchwork").parents[1].rglob("*.safetensors"))

    assert header_shapes(path) == {name: tuple(one.shape) for name, one in TENSORS.items()}
    assert header_shapes(path) == by_the_library(path)
    assert header_shapes(shipped) == by_the_library(shipped)


def header(**tensors: object) -> bytes:
    """Return a file of a header and eight bytes of tensors."""
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


def tensor(first: int, last: int, shape: tuple[float, ...] = (1,)) -> dict[str, object]:
    """Return what a header says of a tensor of 32 bits."""
    return {"dtype": "F32", "shape": shape, "data_offsets": [first, last]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        bytes(8),
        (9).to_bytes(8, "little") + b"{}",
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{x",
        (2).to_bytes(8, "little") + b"\xff\xff",
        header(),
        header(a=tensor(0, 4)),
        header(a=tensor(0, 4), b=tensor(0, 4)),
        header(a=tensor(4, 8)),
        header(a=tensor(0, 8, (-2,))),
        header(a=tensor(0, 8, (2.5,))),
        header(a={"shape": [2], "data_offsets": [0, 8]}),
        header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}),
        header(a={"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}),
        header(a={"dtype": "F32", "shape": [1000], "data_offsets": [0, 8]}),
        header(a={"dtype": "NOPE", "shape": [2], "data_offsets": [0, 8]}),
        header(a={"dtype": "F32", "shape": [2**70], "data_offsets": [0, 8]}),
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
    ],
)
def test_broken_file_is_refused_as_the_library_does(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)

    with pytest.raises(SafetensorError):
        by_the_library(tmp_path / "w.safetensors")
    with pytest.raises(ValueError):  # noqa: PT011
        header_shapes(tmp_path / "w.safetensors")


@pytest.mark.parametrize("n_bytes", [-1, 1, -20])
def test_file_of_another_length_is_refused(path: Path, n_bytes: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:n_bytes] if n_bytes < 0 else content + bytes(n_bytes))

    with pytest.raises(ValueError, match="do not end where the file does"):
        header_shapes(path)


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.int8, torch.int64, torch.float16, torch.float64, torch.float8_e4m3fn],
)
def test_type_of_any_width_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(3, 5).to(dtype)}, path)

    assert header_shapes(path) == {"a": (3, 5)}


def test_valid_spec_is_checked_without_numpy_and_pillow() -> None:
    code = (
        "import sys\n"
        "from spar_bench.cli import main\n"
        "main(['check', sys.argv[1]], standalone_mode=False)\n"
        "print(sorted({'numpy', 'PIL', 'torch'} & sys.modules.keys()))"
    )

    said = printed(code, str(Path(__file__).parents[2] / "experiments" / "stride.yaml"))

    assert said.splitlines()[1:] == ["[]"]
