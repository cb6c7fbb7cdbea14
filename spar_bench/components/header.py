"""The header of a safetensors file: what its tensors are, read without numpy or torch.

The file is the header's length in eight bytes, little-endian; the header, in JSON; and the bytes of
the tensors, without gaps. Source: huggingface/safetensors, README.md, "Format". The library's own
`safe_open` imports a framework to open a file.
"""

import json
import os
from pathlib import Path

from pydantic import BaseModel, NonNegativeInt, TypeAdapter

Shape = tuple[int, ...]
_LENGTH_BYTES = 8
_LONGEST = 100_000_000
"""Of a header in bytes, as the format limits it."""


class _Tensor(BaseModel, extra="forbid", strict=True):
    dtype: str
    shape: list[NonNegativeInt]
    data_offsets: list[NonNegativeInt]


_TENSORS = TypeAdapter(dict[str, _Tensor])


def header_shapes(path: Path) -> dict[str, Shape]:
    """Return the shapes of the tensors in a safetensors file by their names.

    Raises:
        ValueError: the file is empty, cut off, too long, or of another kind.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        n_bytes = os.fstat(file.fileno()).st_size - _LENGTH_BYTES - length
        if not 0 < length <= _LONGEST or n_bytes < 0:
            raise ValueError("the header is longer than the file, or empty")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("the header is no mapping")
    header.pop("__metadata__", None)
    tensors = _TENSORS.validate_python(header)
    end = 0
    for offsets in sorted(tensor.data_offsets for tensor in tensors.values()):
        if offsets != [end, max(offsets, default=0)]:
            raise ValueError("the tensors have gaps between them, or overlap")
        end = offsets[1]
    if end != n_bytes:
        raise ValueError("the tensors do not end where the file does")
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
