"""Keep the backbone's weights small on disk: half precision, and only the trained tokens.

The file holds an open_clip state dict whose token table has one row per known token, and
`token_ids`, which says where in the full vocabulary each row belongs.
"""

from functools import cache
from pathlib import Path

import open_clip
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from spar_bench.files import replace_bytes
from spar_bench.patchwork.classes import CLASSES

MODEL = Path(__file__).parent / "model"
WEIGHTS_FILE = "patchwork.safetensors"

_TABLE = "token_embedding.weight"
_IDS = "token_ids"
_VOCABULARY = 49408


def load_state_dict(folder: Path = MODEL) -> dict[str, Tensor]:
    """Return the state dict of the whole open_clip model, in float32.

    The rows of untrained tokens are zero; `unknown_tokens` finds them.
    """
    state = load_file(folder / WEIGHTS_FILE)
    ids = state.pop(_IDS).long()
    state = {name: weight.float() for name, weight in state.items()}
    table: Tensor = torch.zeros(_VOCABULARY, state[_TABLE].shape[1])
    table[ids] = state[_TABLE]
    return {**state, _TABLE: table}


def save_state_dict(state: dict[str, Tensor], token_ids: Tensor, folder: Path) -> None:
    """Write a state dict whose token table has one row for each of `token_ids`, in half."""
    assert len(state[_TABLE]) == len(token_ids), "the table needs one row per token"
    small = {name: weight.detach().half().contiguous() for name, weight in state.items()}
    replace_bytes(folder / WEIGHTS_FILE, save({**small, _IDS: token_ids.int()}))


@cache
def known_tokens(folder: Path = MODEL) -> frozenset[int]:
    """Return the tokens that the shipped text tower was trained on."""
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
        return frozenset(file.get_tensor(_IDS).tolist())


def unknown_tokens(token_ids: Tensor) -> list[int]:
    """Return the tokens among `token_ids`, of any shape, that the tower was not trained on."""
    known = known_tokens()
    return [token for token in dict.fromkeys(token_ids.flatten().tolist()) if token not in known]


def taught_prompts() -> list[Tensor]:
    """Return the tokens of each class, for every name in each of open_clip's 80 templates.

    One `(names * 80, context length)` per class.
    """
    tokenizer = open_clip.get_tokenizer(f"local-dir:{MODEL}")
    return [
        tokenizer([fill(name) for name in names for fill in open_clip.OPENAI_IMAGENET_TEMPLATES])
        for names in CLASSES
    ]
