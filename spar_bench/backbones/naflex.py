"""SigLIP2 of flexible size and aspect ratio (NaFlex): as many tokens as the image has patches.

Shape legend: B images, h x w patches, N = h * w tokens, p patch side in pixels, D width.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import torch.nn.functional as F
from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from spar_bench.backbones.base import Exported, Library, Parts
from spar_bench.backbones.siglip2 import Backbone as SigLip2
from spar_bench.backbones.siglip2 import has_open_head, parts_of, sizes_of_trunk
from spar_bench.components.backbone import card, require_known_model, shapes_of, weights_of
from spar_bench.components.open_clip_io import open_clip_model
from spar_bench.components.weights import Weights
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


class Backbone(SigLip2):
    """The published SigLIP2 NaFlex: timm's trunk, and the text tower of the same checkpoint.

    An image of more patches than the token budget is first scaled down (`Sizes.scaled_hw`).

    Raises:
        NotReady: its weights are missing, or have another kind of image tower.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        shapes = shapes_of(spec)
        weights, architecture = weights_of(spec), card(spec.name).model
        require_known_model(spec, weights)
        if open_clip.get_model_config(architecture) is None:
            open_clip.add_model_config(CONFIG)
        model = open_clip_model(_without_config(weights), architecture, shapes)
        self._build(spec, model, weights)

    def _sizes_of(self, visual: Any, weights: Weights) -> dict[str, int]:
        trunk = getattr(visual, "trunk", None)
        if not isinstance(trunk, NaFlexVit) or not has_open_head(visual) or not _is_plain(trunk):
            raise NotReady(
                f"backbone.path: must hold a timm SigLIP NaFlex ViT, but {weights.place} has "
                f"a {type(trunk or visual).__name__}; use another backbone plug-in"
            )
        embeds: Any = trunk.embeds
        side_px = embeds.patch_size[0]
        return {
            "patch_px": side_px,
            "image_px": embeds.pos_embed.shape[1] * side_px,
            **sizes_of_trunk(trunk),
        }

    def parts(self) -> Parts:
        """Return the trainable parts by timm's own names; the pooling head is in none of them."""
        trunk = self._tower.trunk
        embeds = trunk.embeds
        return parts_of(trunk, [embeds.pos_embed], list(embeds.proj.parameters()))

    def export(self, library: Library) -> Exported:
        """Return the model as the installed open_clip reads it, or its image tower as timm's."""
        exported = super().export(library)
        if library == "timm":
            return exported
        config = {**exported.config, "model_cfg": open_clip.get_model_config(self._architecture)}
        return replace(exported, config=config)

    def _embed(self, images: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        rows, columns = grid_hw
        p = self.sizes.patch_px
        pixels = images.reshape(len(images), 3, rows, p, columns, p)
        patches = pixels.permute(0, 2, 4, 3, 5, 1).reshape(len(images), rows * columns, -1)
        x: Tensor = self._tower.trunk.embeds.proj(patches)
        return x + self._positions(grid_hw).to(x.dtype)

    def _positions(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return position embeddings for a grid, `(1, N, D)`: bilinear by size, antialiased.

        As timm's own forward does it; timm 1.0.17 did it bicubically.
        """
        maps: Tensor = self._tower.trunk.embeds.pos_embed.permute(0, 3, 1, 2)
        if maps.shape[-2:] != grid_hw:
            maps = F.interpolate(maps, size=grid_hw, mode="bilinear", antialias=True)
        return maps.flatten(2).transpose(1, 2)


def _without_config(weights: Weights) -> Weights:
    """Return a folder's weights alone: its config may have keys that open_clip 3.3 lacks."""
    if weights.is_random:
        return replace(weights, path=None)
    if weights.has_config and weights.files:
        return replace(weights, path=weights.files[0])
    return weights


def _is_plain(trunk: Any) -> bool:
    """Tell whether patches are embedded by just one product with weights and a learned table."""
    embeds = trunk.embeds
    return (
        embeds.is_linear
        and embeds.norm_input is None
        and isinstance(embeds.norm, nn.Identity)
        and embeds.pos_embed_type == "learned"
        and getattr(embeds, "channels_last", True)
        and getattr(trunk, "rope", None) is None
    )
