"""DINOv3 with dino.txt: patch tokens of the trunk, or of dino.txt's vision head, against its text.

Shape legend: B images, N tokens, D width, T prompts.
"""

import json
from collections.abc import Mapping
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spar_bench import registry
from spar_bench.backbones import base
from spar_bench.backbones._dinotxt import DinoTxt, Shapes
from spar_bench.backbones.dinov3 import (
    TrunkBackbone,
    drawn_from,
    load_strictly,
    read_weights,
)
from spar_bench.components.backbone import weights_of
from spar_bench.components.weights import describe_read_error
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec

VERSION = 1
BUILDS_ON = "dinov3"
NEEDS_DATA_FILE = True
MODELS_OF = "timm"
BY_NAME_ALONE = True
SHAPES = {
    "patch_embed.proj.weight": "width 3 patch_px patch_px",
    "visual_model.backbone.patch_embed.proj.weight": "width 3 patch_px patch_px",
}

CONTEXT = 77
_TRUNK = "visual_model.backbone."
_HEAD = "visual_model.head."
_OWN = ("logit_scale", _HEAD, "text_model.")


class Backbone(TrunkBackbone):
    """A DINOv3 trunk, and dino.txt's vision head and text tower.

    A text is embedded in two halves: the first for the class token, the second for patches. The
    latter is compared with the trunk's patch tokens (`patch_tokens`, as the paper's code and Meta's
    example do), or by those of the vision head (`head_patch_tokens`), which then is a part of the
    image tower. The weights of head and tower are listed beside the data file, in `_keys.json`.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        weights = weights_of(spec)
        with drawn_from(weights.seed):
            super().__init__(spec)
            self._text: Any = DinoTxt(_listed_shapes(spec.name)).eval()
        self._tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
        self._head: nn.Module | None = None
        self.visual: nn.Module = self.trunk
        if self.sizes.read_out == "head_patch_tokens":
            self._head = self._text.visual_model["head"]
            self.visual = nn.ModuleDict({"trunk": self.trunk, "head": self._head}).eval()
        self.model = nn.ModuleList([self.visual, self._text])
        if not weights.is_random:
            self._load(read_weights(weights), str(weights.path))

    def read(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return the patch tokens of the trunk, or of the vision head, `(B, D, h, w)`."""
        if self._head is None:
            return super().read(tokens, grid_hw)
        tokens = self._head(self.trunk.norm(tokens))
        return base.on_grid(tokens[:, self.sizes.prefix_tokens :], grid_hw)

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Embed prompts to `(T, D)`, normalised: the half that patches are compared with."""
        device = next(self._text.parameters()).device
        with torch.no_grad():
            embedded: Tensor = self._text.text_model(self._tokenizer(prompts).to(device))
        return F.normalize(embedded[:, -self.sizes.channels :], dim=1)

    def from_checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the image tower's weights from a checkpoint, whatever its prefix and names.

        Raises:
            KeyError: the checkpoint lacks one.
            ValueError: it has biases that DINOv3 does not have, or another text tower.
        """
        base.require_same_text(self._text.state_dict(), state)
        trunk = self.trunk_weights(state)
        if self._head is None:
            return trunk
        head = base.under_any_prefix(self._head.state_dict(), state)
        return {
            **{f"trunk.{name}": tensor for name, tensor in trunk.items()},
            **{f"head.{name}": tensor for name, tensor in head.items()},
        }

    def _load(self, state: dict[str, Tensor], place: str) -> None:
        own = {name: tensor for name, tensor in state.items() if name.startswith(_OWN)}
        trunk = {k.removeprefix(_TRUNK): v for k, v in state.items() if k not in own}
        self.load_trunk(trunk, place)
        load_strictly(self._text, own, place)


def _listed_shapes(name: str) -> Shapes:
    data_file = registry.data_file("backbones", name)
    assert data_file is not None, "a plug-in that needs a data file has one"
    keys = data_file.with_name(f"{data_file.stem}_keys.json")
    try:
        shapes: Shapes = json.loads(keys.read_text(encoding="utf-8"))
        return shapes
    except (OSError, ValueError) as error:
        raise NotReady(
            f"{keys}: must list the weights of dino.txt with their shapes, but "
            f"{describe_read_error(error)}; write it beside the data file"
        ) from error
