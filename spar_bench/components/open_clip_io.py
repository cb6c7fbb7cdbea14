"""Models of open_clip: load one without the network, and embed prompts.

Shape legend: T prompts, C channels.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from textwrap import shorten
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.func import functional_call

from spar_bench.components.backbone import card, require_known_model, shapes_of, weights_of
from spar_bench.components.fits import require_shapes
from spar_bench.components.header import Shape
from spar_bench.components.open_clip_config import (
    Config,
    HubTokenizer,
    require_tokenizer,
    stated_preprocessing,
    tokenizer_of,
)
from spar_bench.components.sizes import Sizes
from spar_bench.components.tensors import read_shapes
from spar_bench.components.weights import LEGACY, Channels, Weights, readable
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec


class OpenClipModel:
    """A model of open_clip in evaluation mode, where its weights are, and its name there."""

    def __init__(self, model: nn.Module, weights: Weights, architecture: str) -> None:
        self.model: Any = model.eval()  # open_clip states no types
        self.visual: Any = self.model.visual
        self.weights, self.architecture = weights, architecture

    @cached_property
    def tokenizer(self) -> Any:
        """Built for the first prompt: training a student needs none."""
        return tokenizer(self.weights, self.architecture)

    def tokenize(self, prompts: list[str]) -> Tensor:
        """Return the token ids of prompts, `(T, context length)`."""
        ids: Tensor = self.tokenizer(prompts)
        return ids

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Embed prompts to `(T, C)`, normalised."""
        ids = self.tokenize(prompts).to(next(self.model.parameters()).device)
        with torch.no_grad():
            return _embedded(self.model, ids)


def _embedded(model: Any, ids: Tensor) -> Tensor:
    """Embed token ids `(T, N)` to `(T, C)`, normalised; the longest prompt is the last thing read.

    That is exact where each token sees only earlier ones, and a prompt is what its end holds, the
    largest id: a model of CLIP's, whose prompts of 77 tokens are mostly padding.
    """
    is_clip = isinstance(model, open_clip.CLIP) and model.attn_mask is not None
    if not is_clip or model.text_pool_type != "argmax":
        embedded: Tensor = model.encode_text(ids, normalize=True)
        return embedded
    n = int(ids.argmax(dim=1).max()) + 1
    shorter = {
        "positional_embedding": model.positional_embedding[:n],
        "attn_mask": model.attn_mask[:n, :n],
    }
    found = functional_call(model, shorter, kwargs={"text": ids[:, :n]})
    cut: Tensor = found["text_features"] if isinstance(found, dict) else found[1]
    return cut


def load_open_clip(spec: BackboneSpec, *, reads_config: bool = True) -> OpenClipModel:
    """Load the open_clip model of a backbone in a spec.

    Without `reads_config`, it is built by the name in the data file, whatever is beside its
    weights.

    Raises:
        NotReady: its weights are missing, cannot be read, or are of another model.
    """
    shapes = shapes_of(spec)  # has its own message for a missing path
    weights, architecture = weights_of(spec), card(spec.name).model
    require_known_model(spec, weights)
    read = weights if reads_config else _without_config(weights)
    return OpenClipModel(_model(read, architecture, shapes), weights, architecture)


def _without_config(weights: Weights) -> Weights:
    """Return a folder's weights alone: its config may have keys that open_clip 3.3 lacks."""
    if weights.is_random:
        return replace(weights, path=None)
    if weights.has_config and weights.files:
        return replace(weights, path=weights.files[0])
    return weights


def _model(weights: Weights, architecture: str, determined: Mapping[str, Shape]) -> nn.Module:
    """Load an open_clip model without the network; without a config, its architecture is by name.

    `determined` are the shapes of tensors that the backbone's sizes determine.
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
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for file, shapes in files.items():  # loaded exactly as its file has it
        require_shapes(file, shapes, own)
    return model


def _file(weights: Weights) -> str:
    """Return the one file of weights in a place without a config."""
    if len(weights.files) != 1:
        n_files = len(weights.files)
        raise ValueError(f"it has {n_files} files of weights, and no config that chooses one")
    return str(weights.files[0])


def require_sizes(
    found: Mapping[str, int], sizes: Sizes, spec: BackboneSpec, weights: Weights
) -> None:
    """Check a loaded model against the sizes that plans are made with.

    Raises:
        NotReady: a size differs.
    """
    for name, value in found.items():
        own = getattr(sizes, name)
        if value != own and weights.path is None:
            raise NotReady(
                f"backbone {spec.name}: {name}: must be {value}, as in open_clip's "
                f"{card(spec.name).model}, but is {own}; correct it, or name the model that it "
                "belongs to"
            )
        if value != own:
            raise NotReady(
                f"backbone.path: must hold a model of {name} {own}, but {weights.path} has "
                f"{value}; name other weights, or the backbone they belong to"
            )


def preprocessing(spec: BackboneSpec, weights: Weights) -> tuple[Channels, Channels]:
    """Return mean and standard deviation: the config's, else the data file's, else CLIP's own."""
    if spec.preprocessing == "legacy":
        return LEGACY, LEGACY
    stated, known = stated_preprocessing(weights), card(spec.name)
    mean = stated.get("mean") or known.mean or open_clip.OPENAI_DATASET_MEAN
    std = stated.get("std") or known.std or open_clip.OPENAI_DATASET_STD
    return tuple(mean), tuple(std)


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


def _hub_tokenizer(needed: HubTokenizer, text: Config) -> Any:
    """Read a tokenizer of the Hub from its folder in the cache, as open_clip would by its name.

    By name, transformers 5 also wants a config.json, which not every such repository has.
    """
    return open_clip.tokenizer.HFTokenizer(
        str(needed.folder),
        context_length=text["context_length"],
        tokenizer_mode=text.get("tokenizer_mode"),
        **text.get("tokenizer_kwargs", {}),
    )
