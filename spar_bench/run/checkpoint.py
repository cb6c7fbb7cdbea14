"""Unfinished work in one safetensors file: tensors, and the rest of the state as JSON."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spar_bench.files import replace_bytes

CHECKPOINT_FILE = "checkpoint.safetensors"
CHECKPOINT_S = 20.0
"""Seconds between checkpoints: the most work that a kill can lose."""


def save_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a checkpoint, completely or not at all."""
    replace_bytes(path, save(tensors, metadata={"state": json.dumps(state)}))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the tensors and the state of a checkpoint, on the CPU.

    None if there is none, or it cannot be read, as after a power cut: work then starts over.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


def is_whole(path: Path) -> bool:
    """Tell whether a safetensors file exists with all its bytes."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False
