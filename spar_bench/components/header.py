"""The header of a safetensors file: what its tensors are, read without numpy or torch.

The file is the header's length in eight bytes, little-endian; the header, in JSON; and the bytes of
the tensors, without gaps. Source: huggingface/safetensors, README.md, "Format". The library's own
`safe_open` imports a framework to open a file.
"""

import json
import os
from math import prod
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


_BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64},
    **{"I64": 64, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64},
    **{"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8},
    **{"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
"""Bits of a value, by its type's name."""

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
        try:
            header = json.loads(file.read(length))
        except RecursionError as error:
            raise ValueError("the header is nested too deep") from error
    if not isinstance(header, dict):
        raise ValueError("the header is no mapping")
    header.pop("__metadata__", None)
    tensors = _TENSORS.validate_python(header)
    end = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.data_offsets):
        n_bits = prod(tensor.shape) * _BITS.get(tensor.dtype, -1)
        if n_bits % 8 or tensor.data_offsets != [end, end + n_bits // 8]:
            raise ValueError("the tensors are of another size, have gaps between them, or overlap")
        end = tensor.data_offsets[1]
    if end != n_bytes:
        raise ValueError("the tensors do not end where the file does")
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
