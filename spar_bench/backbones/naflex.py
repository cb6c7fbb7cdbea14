"""SigLIP2 of flexible size and aspect ratio (NaFlex): as many tokens as the image has patches.

Shape legend: B images, h x w patches, N = h * w tokens, p patch side in pixels, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import torch.nn.functional as F
from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from spar_bench.backbones import base
from spar_bench.backbones.siglip2 import (
    export_siglip,
    has_open_head,
    parts_of,
    read_values,
    sizes_of_trunk,
)
from spar_bench.components.backbone import known_sizes
from spar_bench.components.open_clip_io import (
    OpenClipModel,
    load_open_clip,
    preprocessing,
    require_sizes,
)
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec

VERSION = 1
BUILDS_ON = "siglip2"
NEEDS_DATA_FILE = True
MODELS_OF = "open_clip"
BY_NAME_ALONE = True
SHAPES = {
    "visual.trunk.embeds.proj.weight": "width 3 patch_px patch_px",
    "visual.trunk.embeds.pos_embed": "1 native_side native_side width",
}

CONFIG = Path(__file__).with_name("ViT-B-16-SigLIP2-naflex.json")
"""The architecture's name in open_clip after 3.3."""


class Backbone(base.Backbone):
    """The published SigLIP2 NaFlex: timm's trunk, and the text tower of the same checkpoint.

    An image of more patches than the token budget is first scaled down (`Sizes.scaled_hw`).

    Raises:
        NotReady: its weights are missing, or have another kind of image tower.
    """

    def __init__(self, spec: BackboneSpec, clip: OpenClipModel | None = None) -> None:
        if open_clip.get_model_config(CONFIG.stem) is None:
            open_clip.add_model_config(CONFIG)
        self._clip = clip = clip or load_open_clip(spec, reads_config=False)
        self.model, self.visual, self.sizes = clip.model, clip.visual, known_sizes(spec)
        trunk: Any = getattr(clip.visual, "trunk", None)
        self._trunk = trunk
        is_naflex = isinstance(trunk, NaFlexVit) and has_open_head(clip.visual)
        if not is_naflex or not _is_plain(trunk):
            raise NotReady(
                f"backbone.path: must hold a timm SigLIP NaFlex ViT, but {clip.weights.place} has "
                f"a {type(trunk or clip.visual).__name__}; use another backbone plug-in"
            )
        side_px = trunk.embeds.patch_size[0]
        image_px = trunk.embeds.pos_embed.shape[1] * side_px
        own = {"patch_px": side_px, "image_px": image_px, **sizes_of_trunk(trunk)}
        require_sizes(own, self.sizes, spec, clip.weights)
        self.mean, self.std = preprocessing(spec, clip.weights)

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens before the first block, `(B, N, D)`."""
        p = self.sizes.patch_px
        rows, columns = images.shape[-2] // p, images.shape[-1] // p
        pixels = images.reshape(len(images), 3, rows, p, columns, p)
        patches = pixels.permute(0, 2, 4, 3, 5, 1).reshape(len(images), rows * columns, -1)
        x: Tensor = self._trunk.embeds.proj(patches)
        return x + self._positions((rows, columns)).to(x.dtype)

    def blocks(self, grid_hw: tuple[int, int]) -> Sequence[base.Block]:
        """Return all blocks of the trunk."""
        return list(self._trunk.blocks)

    def read(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return dense features `(B, C, h, w)` in the text's space."""
        return read_values(self._trunk, tokens, grid_hw)

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Embed prompts to `(T, C)`, normalised."""
        return self._clip.encode_text(prompts)

    def parts(self) -> base.Parts:
        """Return the trainable parts by timm's own names; the pooling head is in none of them."""
        embeds = self._trunk.embeds
        return parts_of(self._trunk, [embeds.pos_embed], list(embeds.proj.parameters()))

    def from_checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the image tower's weights from a checkpoint, whatever its prefix."""
        return self._clip.image_weights(state)

    def export(self, library: base.Library) -> base.Exported:
        """Return the model as the installed open_clip reads it, or its image tower as timm's."""
        exported = export_siglip(self._clip, self, library)
        if library == "timm":
            return exported
        own = open_clip.get_model_config(self._clip.architecture)
        return replace(exported, config={**exported.config, "model_cfg": own})

    def _positions(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return position embeddings for a grid, `(1, N, D)`: bilinear by size, antialiased.

        As timm's own forward does it; timm 1.0.17 did it bicubically.
        """
        maps: Tensor = self._trunk.embeds.pos_embed.permute(0, 3, 1, 2)
        if maps.shape[-2:] != grid_hw:
            maps = F.interpolate(maps, size=grid_hw, mode="bilinear", antialias=True)
        return maps.flatten(2).transpose(1, 2)


def _is_plain(trunk: Any) -> bool:
    """Return whether patches are embedded by just one product with weights and a learned table."""
    embeds = trunk.embeds
    return (
        embeds.is_linear
        and embeds.norm_input is None
        and isinstance(embeds.norm, nn.Identity)
        and embeds.pos_embed_type == "learned"
        and getattr(embeds, "channels_last", True)
        and getattr(trunk, "rope", None) is None
    )
