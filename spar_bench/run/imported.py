"""A student out of a checkpoint that was trained elsewhere, the paper's released files among them.

Such a file may be a Lightning `.ckpt`, a plain `.pth` or `.pt`, or safetensors; the names of its
weights may have any prefix. Source: the released files' key prefixes, naomikombol/SPAR @0f63ff2.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from spar_bench.backbones.base import exchanges
from spar_bench.errors import NotReady
from spar_bench.files import replace_bytes, replace_text
from spar_bench.run.context import TRAINED_FILE, Context
from spar_bench.stage import Stage


def make_imported(stage: Stage, context: Context) -> dict[str, Any]:
    """Write those weights of a checkpoint that differ from the pretrained ones.

    Raises:
        NotReady: the file cannot be read, or does not hold the backbone's image tower.
    """
    path = Path(stage.how["checkpoint"])
    spec = stage.how["backbone"]
    backbone = context.backbone(spec)
    pretrained = {name: value.cpu() for name, value in backbone.visual.state_dict().items()}
    try:
        imported = exchanges(backbone, spec.name).from_checkpoint(read_checkpoint(path))
        _require_like(pretrained, imported)
    except (KeyError, ValueError) as error:
        raise NotReady(
            f"{path}: must hold the image tower of {spec.name}, but "
            f"{error.args[0]}; name the backbone that it was trained from"
        ) from error
    trained = {
        name: value.to(pretrained[name].dtype).contiguous()
        for name, value in imported.items()
        if not torch.equal(value.to(pretrained[name].dtype), pretrained[name])
    }
    output = context.store.scratch(stage) / "output"
    replace_bytes(output / TRAINED_FILE, save(trained))
    replace_text(output / "curve.json", json.dumps([]))
    return {
        "trained_tensors": len(trained),
        "all_tensors": len(pretrained),
        "trained_params": sum(value.numel() for value in trained.values()),
        "checkpoint": path.name,
        "backbone": spec.model_dump(mode="json"),
    }


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint by name, on the CPU; nothing in it is run.

    Raises:
        NotReady: it cannot be read, or holds no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        read: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file can be wrong in as many ways as torch has readers
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise NotReady(
            f"{path}: must be a checkpoint that can be read without running its code, but is not: "
            f"{reason}; save its state dict alone, with torch.save"
        ) from error
    state = read["state_dict"] if isinstance(read, dict) and "state_dict" in read else read
    found = _tensors(state) or _only_nested(state, path)
    if not found:
        raise NotReady(f"{path}: must hold a state dict, but has no tensors; name another file")
    return found


def _tensors(state: Any) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name; of anything else, none."""
    items = state.items() if isinstance(state, dict) else ()
    return {str(name): value for name, value in items if isinstance(value, Tensor)}


def _only_nested(state: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors under the one key that holds any, as `model` in many trainers' files.

    Raises:
        NotReady: several keys do.
    """
    items = state.items() if isinstance(state, dict) else ()
    nested = {str(key): tensors for key, value in items if (tensors := _tensors(value))}
    if len(nested) > 1:
        keys = ", ".join(map(repr, nested))
        raise NotReady(
            f"{path}: must hold one state dict, but has several, under {keys}; save the student's "
            "alone, with torch.save"
        )
    return next(iter(nested.values()), {})


def _require_like(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, value in expected.items():
        if found[name].shape != value.shape:
            shapes = f"{tuple(found[name].shape)}, not {tuple(value.shape)}"
            raise ValueError(f"{name} has shape {shapes}")
        if not found[name].isfinite().all():
            raise ValueError(f"{name} is not finite")
