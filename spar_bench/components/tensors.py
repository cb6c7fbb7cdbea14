"""Files of tensors as others write them: safetensors, state dicts, trainers' checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from spar_bench.components.fits import lone_file, require_listed
from spar_bench.components.header import Shape, header_shapes
from spar_bench.components.weights import Weights
from spar_bench.errors import NotReady


def read_tensors(
    path: Path, device: str = "cpu", *, under: str = "state_dict"
) -> dict[str, Tensor]:
    """Return all tensors of a file by name, on a device; no code in it is run.

    Where a trainer's checkpoint has the key `under`, those under it.

    Raises:
        NotReady: it cannot be read, or holds no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path, device)
            return tensors
        read: Any = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a file can be wrong in as many ways as torch has readers
        raise NotReady(
            f"{path}: must be a complete file of tensors alone, but cannot be read without running "
            "what it holds; get it again, or save only its state dict, with torch.save"
        ) from error
    state = read[under] if isinstance(read, dict) and under in read else read
    found = _tensors(state)
    if not any(tensor.ndim for tensor in found.values()):  # such as a best loss beside them
        found = _only_nested(state, path) or found
    if not found:
        raise NotReady(f"{path}: must hold a state dict, but has no tensors; name another file")
    return found


def read_listed(plugin: Path, weights: Weights, *, under: str = "state_dict") -> dict[str, Tensor]:
    """Return the tensors of one file of weights: all that a plug-in lists (`TENSORS`), no others.

    Raises:
        NotReady: there are several files, or this one cannot be read, lacks a tensor, has another,
            or has a value that is not finite.
    """
    path = lone_file(weights)
    state = read_tensors(path, under=under)
    require_listed(plugin, path, shapes_of(state))
    unfit = next((name for name, one in state.items() if not one.isfinite().all()), None)
    if unfit is not None:
        raise NotReady(f"{path}: {unfit} must be finite, but is not; get it again")
    return state


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Return the shapes of tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def read_shapes(path: Path) -> dict[str, Shape]:
    """Return the shapes of a file's tensors by name without reading values; {} for other files."""
    try:
        if path.suffix == ".safetensors":
            return header_shapes(path)
        return shapes_of(read_tensors(path, "meta"))
    except (NotReady, ValueError):
        return {}


def _tensors(state: Any) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name; of anything else, none."""
    items = state.items() if isinstance(state, dict) else ()
    return {str(name): value for name, value in items if isinstance(value, Tensor)}


def _only_nested(state: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors under the one key that holds any, such as `model` in trainers' files.

    Raises:
        NotReady: several keys hold tensors.
    """
    items = state.items() if isinstance(state, dict) else ()
    nested = {str(key): tensors for key, value in items if (tensors := _tensors(value))}
    if len(nested) > 1:
        keys = ", ".join(map(repr, nested))
        raise NotReady(
            f"{path}: must hold one state dict, but has several, under {keys}; save only "
            "the one to read, with torch.save"
        )
    return next(iter(nested.values()), {})
