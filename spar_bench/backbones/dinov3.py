"""DINOv3's ViTs without text, read densely by their final patch tokens: for distillation alone.

Shape legend: B images, h x w patches, P prefix tokens, N = P + h * w tokens, D width.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.eva import checkpoint_filter_fn
from torch import Tensor, nn

from spar_bench.backbones.base import Exported, Library, Parts, fit_sides, under_any_prefix
from spar_bench.components.backbone import card, known_sizes, weights_of
from spar_bench.components.exporting import timm_folder
from spar_bench.components.tensors import read_tensors
from spar_bench.components.weights import LEGACY, Weights
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.spec.schema import BackboneSpec

VERSION = 1
NEEDS_DATA_FILE = True
MODELS_OF = "timm"
BY_NAME_ALONE = True
SHAPES = {"patch_embed.proj.weight": "width 3 patch_px patch_px"}

_BIASES = (".attn.qkv.bias", ".attn.q_bias", ".attn.v_bias")
_PERIODS = "rope_embed.periods"
_ROUND = "as published: model.rope.periods.copy_(model.rope.periods.bfloat16())"


class Backbone:
    """A DINOv3 trunk as timm has it, its weights in Meta's file or in timm's.

    Raises:
        NotReady: its weights are missing, or are not those of the model that its data file names.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        self.sizes, stated = known_sizes(spec), card(spec.name)
        self.name = spec.name
        self.mean = stated.mean or IMAGENET_DEFAULT_MEAN
        self.std = stated.std or IMAGENET_DEFAULT_STD
        if spec.preprocessing == "legacy":
            self.mean = self.std = LEGACY
        weights = weights_of(spec)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights.seed)
            self._build(spec)
        if not weights.is_random:
            self._load(read_weights(weights), str(weights.path))

    def _build(self, spec: BackboneSpec) -> None:
        """Build the modules, in evaluation mode."""
        self._architecture = card(spec.name).model
        if self._architecture not in timm.list_models("*dinov3*"):
            raise SparBenchError(
                f"backbone {spec.name}: model: must be one of timm's DINOv3, but got "
                f"{self._architecture!r}; use {', '.join(timm.list_models('*patch16_dinov3'))}"
            )
        self._arguments = {
            "patch_size": self.sizes.patch_px,
            "embed_dim": self.sizes.width,
            "depth": self.sizes.depth,
            "num_heads": self.sizes.heads,
            "num_reg_tokens": self.sizes.prefix_tokens - 1,
        }
        made: Any = timm.create_model(self._architecture, **self._arguments)
        self._trunk = round_periods(made.eval())
        self.visual: nn.Module = self._trunk

    def _load(self, state: dict[str, Tensor], place: str) -> None:
        """Load all published weights."""
        load_trunk(self._trunk, state, place)

    def to(self, device: torch.device) -> None:
        """Move the image tower to a device."""
        self.visual.to(device)

    def features(self, images: Tensor) -> Tensor:
        """Encode normalised images `(B, 3, H, W)` to `(B, D, h, w)`: the final patch tokens."""
        images = fit_sides(images, self.sizes)
        grid_hw = self.sizes.grid_hw((images.shape[-2], images.shape[-1]))
        patches = self._tokens(images)[:, self.sizes.prefix_tokens :]
        return patches.transpose(1, 2).reshape(len(images), -1, *grid_hw)

    def _tokens(self, images: Tensor) -> Tensor:
        """Return the tokens to read `(B, N, D)`; image sides are multiples of the patch."""
        tokens: Tensor = self._trunk.forward_features(images)
        return tokens

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Refuse: there is no text tower.

        Raises:
            SparBenchError: always.
        """
        raise SparBenchError(
            f"backbone {self.name}: must have a text tower to be scored against class names, but "
            "DINOv3 alone has none; use one that does, such as dinov3txt-l16, or read its features "
            "as a library"
        )

    def parts(self) -> Parts:
        """Return the trainable parts of the trunk; its rotary positions have no parameters."""
        blocks = list(self._trunk.blocks)
        return Parts(
            blocks=[list(block.parameters()) for block in blocks],
            attention=[
                [*block.norm1.parameters(), *block.attn.parameters(), block.gamma_1]
                for block in blocks
            ],
            mlp=[
                [*block.norm2.parameters(), *block.mlp.parameters(), block.gamma_2]
                for block in blocks
            ],
            position_embedding=[],
            patch_embedding=list(self._trunk.patch_embed.parameters()),
        )

    def from_checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the image tower's weights from a checkpoint, whatever its prefix and names.

        Raises:
            KeyError: the checkpoint lacks one.
            ValueError: it has biases that DINOv3 does not have.
        """
        return self._trunk_of(state)

    def _trunk_of(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = [name for name in state if name.endswith("cls_token")]
        if not found:
            raise KeyError("it lacks 'cls_token', under any prefix")
        if found[1:]:
            raise ValueError(
                f"it holds several of them, as {found[0]!r} and {found[1]!r}; keep one"
            )
        prefix = found[0].removesuffix("cls_token")
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        return under_any_prefix(self._trunk.state_dict(), timm_names(self._trunk, own))

    def export(self, library: Library) -> Exported:
        """Return the trunk as timm's `local-dir:` reads it, without a text tower.

        timm does not round the periods of the positions as the published files do, which moves
        features by about a thousandth: the config's notes say what to do.

        Raises:
            SparBenchError: another library is asked for.
        """
        if library != "timm" or self.visual is not self._trunk:
            raise SparBenchError(
                f"--format {library}: must be a library that has the model, but only timm has "
                "DINOv3's trunk, and none has what dino.txt adds; use timm, for read_out "
                "patch_tokens"
            )
        state = dict(self._trunk.state_dict())
        made = timm_folder(self, self._architecture, self._arguments, state, self._trunk)
        made.config["pretrained_cfg"]["notes"] = [_ROUND]

        def check(folder: Path, images: Tensor) -> tuple[Tensor, Tensor]:
            read = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
            return round_periods(read)(images), self._trunk(images)

        return replace(made, check=check)

    def load_visual(self, state: Mapping[str, Tensor]) -> None:
        """Replace the image tower's weights; every name must match."""
        self.visual.load_state_dict(state, strict=True)


def round_periods(trunk: Any) -> Any:
    """Round the periods of the rotary positions to what the model was trained with; return it."""
    with torch.no_grad():
        trunk.rope.periods.copy_(trunk.rope.periods.bfloat16())
    return trunk


def load_trunk(trunk: Any, state: Mapping[str, Tensor], place: str) -> None:
    """Load a trunk from weights under Meta's names or timm's.

    Raises:
        NotReady: the weights are not the trunk's.
    """
    try:
        named = timm_names(trunk, state)
    except ValueError as error:
        raise NotReady(f"{place}: must hold DINOv3, but {error}; use published weights") from error
    load_strictly(trunk, named, place)
    if _PERIODS in state:
        with torch.no_grad():
            trunk.rope.periods.copy_(state[_PERIODS])


def timm_names(trunk: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a trunk's weights under timm's names, given Meta's names or timm's.

    Biases of queries, keys and values are zero in every published file, and so is the mask that
    Meta multiplies them by: the model has none. Source: facebookresearch/dinov3 issue 195.

    Raises:
        ValueError: such a bias is not zero.
    """
    biases = [name for name in state if name.endswith(_BIASES)]
    for name in biases:
        if state[name].any():
            raise ValueError(f"{name} is not zero, as it is in every published file")
    dropped = {*biases, _PERIODS}
    kept = {name: tensor for name, tensor in state.items() if name not in dropped}
    if "storage_tokens" not in kept:
        return kept
    named: dict[str, Tensor] = checkpoint_filter_fn(kept, trunk)
    # timm would resample patch embeddings of another size; they are refused like anything else
    return {name: kept.get(name, tensor) for name, tensor in named.items()}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], place: str) -> None:
    """Load weights whose names and shapes match the module's exactly.

    Raises:
        NotReady: one is missing, unexpected, or of another shape; the first is named.
    """
    own = module.state_dict()
    for name in [*own, *sorted(state.keys() - own.keys())]:
        wanted, found = (_shape(weights.get(name)) for weights in (own, state))
        if wanted != found:
            raise NotReady(
                f"{place}: {name} must be {wanted}, but is {found}; use the published weights of "
                "this backbone"
            )
    module.load_state_dict(state, strict=True)


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"of shape {tuple(tensor.shape)}"


def read_weights(weights: Weights) -> dict[str, Tensor]:
    """Read a file of weights, or all those of a folder together, on the CPU.

    Raises:
        NotReady: a file cannot be read without running what it holds, or two files disagree.
    """
    state: dict[str, Tensor] = {}
    for path in weights.files:
        read = read_tensors(path)
        for name in state.keys() & read.keys():
            if not torch.equal(state[name], read[name]):
                raise NotReady(
                    f"{path}: must be the only file with {name}, but another in its folder has a "
                    "different one; keep one of them there"
                )
        state |= read
    return state
