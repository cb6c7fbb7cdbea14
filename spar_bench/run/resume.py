"""Resume state: unfinished work in one safetensors file, tensors and the rest of it as JSON."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spar_bench.files import file_sha256, reading, replace_bytes

RESUME_FILE = "resume.safetensors"
SAVE_EVERY_S = 20.0
"""Seconds after which resume state is saved again: the most work that a kill can lose."""

log = logging.getLogger(__name__)


def save_state(path: Path, tensors: dict[str, Tensor], state: Mapping[str, object]) -> None:
    """Write resume state, completely or not at all."""
    replace_bytes(path, save(tensors, metadata={"state": json.dumps(state)}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the tensors and the JSON of resume state, on the CPU; None if there is none.

    A file that is not resume state is put aside under `.corrupt`, with a warning: work starts over.

    Raises:
        Unreadable: the file is there, but cannot be read now; work must not start over.
    """
    try:
        with reading(path):
            file_sha256(path)  # reads all: an error of the disk below a memory map is no exception
            with safe_open(path, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        aside = path.with_name(f"{path.name}.corrupt")
        os.replace(path, aside)
        log.warning("%s: is no resume state (%s); kept as %s: starting over", path, error, aside)
        return None


def optimiser_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Return what an optimiser has gathered, as `PREFIX/PARAMETER/NAME`, on the CPU."""
    return {
        f"{prefix}/{index}/{name}": torch.as_tensor(value).cpu().contiguous()
        for index, gathered in optimiser.state_dict()["state"].items()
        for name, value in gathered.items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str
) -> None:
    """Put back what `optimiser_tensors` returned; tensors of other prefixes are left out."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}/"):
            index, key = name.removeprefix(f"{prefix}/").split("/")
            state.setdefault(int(index), {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def is_whole(path: Path) -> bool:
    """Return whether a safetensors file exists with all its bytes.

    Raises:
        Unreadable: it is there, but cannot be read now.
    """
    try:
        # Opened first: safetensors says of every file which it cannot open that it is missing.
        with reading(path), path.open("rb"), safe_open(path, framework="pt"):
            return True
    except (FileNotFoundError, SafetensorError):
        return False
