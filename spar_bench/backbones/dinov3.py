"""DINOv3's ViTs without text, read densely by their final patch tokens: for distillation alone.

Shape legend: B images, h x w patches, P prefix tokens, N = P + h * w tokens, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.eva import checkpoint_filter_fn
from torch import Tensor, nn

from spar_bench.backbones import base
from spar_bench.backbones._timm import timm_export
from spar_bench.components.backbone import card, known_sizes, weights_of
from spar_bench.components.fits import require_exactly
from spar_bench.components.tensors import read_tensors, shapes_of
from spar_bench.components.weights import LEGACY, Channels, Weights
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


class TrunkBackbone(base.Backbone):
    """A DINOv3 trunk of timm with random weights at first; a subclass adds what reads its tokens.

    Raises:
        SparBenchError: the data file names no DINOv3 of timm's.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        self.sizes, self.mean, self.std = known_sizes(spec), *preprocessing(spec)
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
        self.trunk = round_periods(made.eval())

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens before the first block, `(B, N, D)`, prefix tokens first."""
        tokens, _ = self.trunk._pos_embed(self.trunk.patch_embed(images))
        embedded: Tensor = self.trunk.norm_pre(tokens)
        return embedded

    def blocks(self, grid_hw: tuple[int, int]) -> Sequence[base.Block]:
        """Return the blocks with the rotary positions of a grid."""
        rope = self.trunk.rope.get_embed(shape=grid_hw)
        return [partial(block, rope=rope) for block in self.trunk.blocks]

    def read(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return the final patch tokens, `(B, D, h, w)`."""
        return base.on_grid(self.trunk.norm(tokens)[:, self.sizes.prefix_tokens :], grid_hw)

    def parts(self) -> base.Parts:
        """Return the trainable parts of the trunk; its rotary positions have no parameters."""
        blocks = list(self.trunk.blocks)
        return base.Parts(
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
            patch_embedding=list(self.trunk.patch_embed.parameters()),
        )

    def load_trunk(self, state: Mapping[str, Tensor], place: str) -> None:
        """Load the trunk's weights under Meta's names or timm's.

        Raises:
            NotReady: the weights are not the trunk's.
        """
        try:
            named = timm_names(self.trunk, state)
        except ValueError as error:
            raise NotReady(
                f"{place}: must hold DINOv3, but {error}; use published weights"
            ) from error
        load_strictly(self.trunk, named, place)
        if _PERIODS in state:
            with torch.no_grad():
                self.trunk.rope.periods.copy_(state[_PERIODS])

    def trunk_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the trunk's weights from a checkpoint, whatever its prefix and names.

        Raises:
            KeyError: the checkpoint lacks one.
            ValueError: it holds several trunks, or biases that DINOv3 does not have.
        """
        found = [name for name in state if name.endswith("cls_token")]
        if not found:
            raise KeyError("it lacks 'cls_token', under any prefix")
        if found[1:]:
            raise ValueError(
                f"it holds several of them, as {found[0]!r} and {found[1]!r}; keep one"
            )
        prefix = found[0].removesuffix("cls_token")
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        return base.under_any_prefix(self.trunk.state_dict(), timm_names(self.trunk, own))

    def export(self, library: base.Library) -> base.Exported:
        """Return the trunk as timm's `local-dir:` reads it, without a text tower.

        timm does not round the periods of the positions as the published files do, which moves
        features by about a thousandth: the config's notes say what to do.

        Raises:
            SparBenchError: another library is asked for, or the image tower has more than a trunk.
        """
        trunk = self.trunk
        if library != "timm" or self.visual is not trunk:
            raise SparBenchError(
                f"--format {library}: must be a library that has the model, but only timm has "
                "DINOv3's trunk, and none has what dino.txt adds; use timm, for read_out "
                "patch_tokens"
            )
        state = dict(trunk.state_dict())
        made = timm_export(self, self._architecture, self._arguments, state, trunk)
        made.config["pretrained_cfg"]["notes"] = [_ROUND]

        def check(folder: Path, images: Tensor) -> tuple[Tensor, Tensor]:
            read = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
            return round_periods(read)(images), trunk(images)

        return replace(made, check=check)


class Backbone(TrunkBackbone):
    """A DINOv3 trunk as timm has it, its weights in Meta's file or in timm's.

    Raises:
        NotReady: its weights are missing, or are not those of the model that its data file names.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        weights, self._name = weights_of(spec), spec.name
        with drawn_from(weights.seed):
            super().__init__(spec)
        if not weights.is_random:
            self.load_trunk(read_weights(weights), str(weights.path))
        self.model = self.visual = self.trunk

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Refuse: there is no text tower.

        Raises:
            SparBenchError: always.
        """
        raise SparBenchError(
            f"backbone {self._name}: must have a text tower to be scored against class names, but "
            "DINOv3 alone has none; use one that does, such as dinov3txt-l16, or read its features "
            "as a library"
        )

    def from_checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the image tower's weights from a checkpoint, whatever its prefix and names.

        Raises:
            KeyError: the checkpoint lacks one.
            ValueError: it has biases that DINOv3 does not have.
        """
        return self.trunk_weights(state)


def preprocessing(spec: BackboneSpec) -> tuple[Channels, Channels]:
    """Return mean and standard deviation: the data file's, else ImageNet's."""
    if spec.preprocessing == "legacy":
        return LEGACY, LEGACY
    stated = card(spec.name)
    return stated.mean or IMAGENET_DEFAULT_MEAN, stated.std or IMAGENET_DEFAULT_STD


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Draw random weights from a seed of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def round_periods(trunk: Any) -> Any:
    """Round the periods of the rotary positions to what the model was trained with; return it."""
    with torch.no_grad():
        trunk.rope.periods.copy_(trunk.rope.periods.bfloat16())
    return trunk


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
    way_out = "use the published weights of this backbone"
    require_exactly(shapes_of(module.state_dict()), shapes_of(state), place, way_out)
    module.load_state_dict(state, strict=True)


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
