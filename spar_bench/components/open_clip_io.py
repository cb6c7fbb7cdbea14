"""Models of open_clip: load one without the network, embed prompts, and write it for others.

Shape legend: T prompts, C channels.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any

import open_clip
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from spar_bench.backbones.base import (
    Backbone,
    Exported,
    Library,
    require_same_text,
    under_any_prefix,
)
from spar_bench.components.backbone import card, require_known_model, shapes_of, weights_of
from spar_bench.components.fits import Shape, require_shapes
from spar_bench.components.open_clip_config import (
    HubTokenizer,
    require_tokenizer,
    stated_config,
    stated_preprocessing,
    tokenizer_of,
)
from spar_bench.components.sizes import Sizes
from spar_bench.components.tensors import read_shapes
from spar_bench.components.weights import CONFIG_FILE, LEGACY, Channels, Weights, readable
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.spec.schema import BackboneSpec

_CLIP_VIT = "vit_base_patch16_clip_224"


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
            embedded: Tensor = self.model.encode_text(ids, normalize=True)
        return embedded

    def image_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the image tower's weights from a whole checkpoint, whatever its prefix.

        Raises:
            KeyError: the checkpoint lacks one.
            ValueError: it is of another model.
        """
        others = ("visual.", "logit_")
        own = {k: v for k, v in self.model.state_dict().items() if not k.startswith(others)}
        require_same_text(own, state)
        return under_any_prefix(self.visual.state_dict(), state)

    def exported(self, backbone: Backbone) -> Exported:
        """Return the whole model, with text tower and tokenizer, for open_clip's `local-dir:`.

        Raises:
            SparBenchError: the tokenizer's files are not beside the weights.
        """
        weights = self.weights
        if weights.folder is not None and weights.has_config:
            stated = stated_config(weights.folder)
        else:
            stated = {"model_cfg": open_clip.get_model_config(self.architecture)}
        preprocess = {"mean": list(backbone.mean), "std": list(backbone.std)}
        needed = tokenizer_of(weights, self.architecture)
        further = needed.files if needed else []
        if "hf_tokenizer_name" in stated["model_cfg"]["text_cfg"] and not further:
            raise SparBenchError(
                "--format open_clip: must have the tokenizer's files beside the weights, but "
                f"{weights.path or 'random weights'} has none; put them there, or export as timm"
            )

        def check(folder: Path, images: Tensor) -> tuple[Tensor, Tensor]:
            read = open_clip.create_model(f"local-dir:{folder}", weights_only=True).eval()
            return read.encode_image(images), self.model.encode_image(images)

        return Exported(
            CONFIG_FILE,
            {**stated, "preprocess_cfg": {**stated.get("preprocess_cfg", {}), **preprocess}},
            "open_clip_model.safetensors",
            dict(self.model.state_dict()),
            further,
            check,
        )


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


def clip_export(clip: OpenClipModel, backbone: Backbone, library: Library) -> Exported:
    """Return a model with open_clip's own ViT as open_clip's or timm's `local-dir:` reads it.

    For timm, the projection is the classifier head.

    Raises:
        SparBenchError: timm has no such ViT.
    """
    if library == "open_clip":
        return clip.exported(backbone)
    visual, sizes = clip.visual, backbone.sizes
    arguments: dict[str, Any] = {
        "img_size": sizes.image_px,
        "patch_size": sizes.patch_px,
        "embed_dim": sizes.width,
        "depth": sizes.depth,
        "num_heads": sizes.heads,
        "mlp_ratio": sizes.mlp_ratio,
        "num_classes": sizes.channels,
    }
    if isinstance(visual.transformer.resblocks[0].mlp.gelu, open_clip.transformer.QuickGELU):
        arguments["act_layer"] = "quick_gelu"
    if visual.pool_type == "avg":
        arguments |= {"global_pool": "avg", "fc_norm": False}
    named = {f"visual.{name}": value for name, value in visual.state_dict().items()}
    tower = timm.create_model(_CLIP_VIT, **arguments)
    state = checkpoint_filter_fn(named, tower)
    try:
        tower.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise SparBenchError(
            "--format timm: must be a ViT that timm also has, but its weights do not fit: "
            f"{reason}; export it as open_clip"
        ) from error
    return timm_export(backbone, _CLIP_VIT, arguments, state, visual)


def timm_export(
    backbone: Backbone,
    architecture: str,
    arguments: dict[str, Any],
    state: dict[str, Tensor],
    tower: nn.Module,
) -> Exported:
    """Return an image tower with the timm name and arguments that it is built from."""
    config = {
        "architecture": architecture,
        "num_classes": arguments.get("num_classes", 0),
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, backbone.sizes.image_px, backbone.sizes.image_px],
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "num_classes": arguments.get("num_classes", 0),
        },
    }

    def check(folder: Path, images: Tensor) -> tuple[Tensor, Tensor]:
        read = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        return read(images), tower(images)

    return Exported("config.json", config, "model.safetensors", state, [], check)
