"""Load a model of open_clip and its tokenizer, without the network."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import open_clip
import torch
from torch import nn

from spar_bench.components.fits import Shape, require_shapes
from spar_bench.components.open_clip_config import HubTokenizer, require_tokenizer, tokenizer_of
from spar_bench.components.tensors import read_shapes
from spar_bench.components.weights import Weights, readable
from spar_bench.errors import NotReady


def open_clip_model(
    weights: Weights, architecture: str, determined: Mapping[str, Shape]
) -> nn.Module:
    """Load an open_clip model without the network; without a config, its architecture is by name.

    `determined` are the shapes of tensors that the backbone's sizes determine.

    Raises:
        NotReady: open_clip cannot read the weights, they are of other sizes, or open_clip
            cannot build their architecture.
    """
    path = weights.path
    with readable(str(path)):
        files = {} if weights.is_random else {file: read_shapes(file) for file in weights.files}
    for file, shapes in files.items():  # before open_clip resamples, which fails in half precision
        require_shapes(file, shapes, determined)
    name = f"local-dir:{path}" if weights.has_config else architecture
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights.seed)
            model: nn.Module = open_clip.create_model(
                name,
                pretrained=None if weights.has_config or weights.is_random else _file(weights),
                load_weights=not weights.is_random,
                require_pretrained=not weights.is_random,
                weights_only=True,
            )
    except Exception as error:  # a folder can be wrong in as many ways as torch has readers
        # torch says first that there are errors, then which
        reason = shorten(" ".join(str(error).splitlines()[:2]), 300) or type(error).__name__
        if path is None:
            raise NotReady(
                f"model {architecture}: must be one that open_clip builds, but building it failed: "
                f"{reason}; name another"
            ) from error
        raise NotReady(
            f"backbone.path: must be weights that open_clip reads, but reading {path} failed: "
            f"{reason}; put complete weights there, or name others"
        ) from error
    _require_own_shapes(model, files)
    return model


def _require_own_shapes(model: nn.Module, files: Mapping[Path, Mapping[str, Shape]]) -> None:
    """Refuse a model that was not loaded exactly as its file, or a file of its folder, has it."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for path, shapes in files.items():
        require_shapes(path, shapes, own)


def tokenizer(weights: Weights, architecture: str) -> Any:
    """Return the tokenizer of a folder, or without a config that of an architecture by name.

    Files that the latter needs are looked for in the Hugging Face cache; the network is never used.

    Raises:
        NotReady: its files are missing, or open_clip cannot make it from what is there.
    """
    require_tokenizer(weights, architecture)
    needed = tokenizer_of(weights, architecture)
    try:
        if weights.has_config:
            return open_clip.get_tokenizer(f"local-dir:{weights.folder}")
        text = open_clip.get_model_config(architecture)["text_cfg"]
        if needed is not None:
            return _hub_tokenizer(needed, text)
        local = {"local_files_only": True} if "hf_tokenizer_name" in text else {}
        return open_clip.get_tokenizer(architecture, **local)
    except Exception as error:  # of its own files, or of another library's
        reason = shorten(" ".join(str(error).split()), 300) or type(error).__name__
        place = weights.folder if weights.has_config else f"model {architecture}"
        raise NotReady(
            f"{place}: must have a tokenizer that transformers reads, but reading it failed: "
            f"{reason}; get its files again"
        ) from error


def _hub_tokenizer(needed: HubTokenizer, text: dict[str, Any]) -> Any:
    """Read a tokenizer of the Hub from its folder in the cache, as open_clip would by its name.

    By name, transformers 5 also wants a config.json, which not every such repository has.
    """
    return open_clip.tokenizer.HFTokenizer(
        str(needed.folder),
        context_length=text["context_length"],
        tokenizer_mode=text.get("tokenizer_mode"),
        **text.get("tokenizer_kwargs", {}),
    )


def _file(weights: Weights) -> str:
    """Return the one file of weights in a place without a config."""
    if len(weights.files) != 1:
        n_files = len(weights.files)
        raise ValueError(f"it has {n_files} files of weights, and no config that chooses one")
    return str(weights.files[0])
