"""SigLIP2 of flexible size and aspect ratio (NaFlex): as many tokens as the image has patches.

Shape legend: B images, h x w patches, N = h * w tokens, p patch side in pixels, D width.
"""

from pathlib import Path

import open_clip
import torch.nn.functional as F
from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from spar_bench.backbones import base
from spar_bench.backbones.siglip2 import SiglipBackbone
from spar_bench.components.open_clip_config import Config
from spar_bench.components.open_clip_io import OpenClipModel, load_open_clip
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


class Backbone(SiglipBackbone):
    """The published SigLIP2 NaFlex: timm's trunk, and the text tower of the same checkpoint.

    An image of more patches than the token budget is first scaled down (`Sizes.scaled_hw`).

    Raises:
        NotReady: its weights are missing, or have another kind of image tower.
    """

    def __init__(self, spec: BackboneSpec, clip: OpenClipModel | None = None) -> None:
        if open_clip.get_model_config(CONFIG.stem) is None:
            open_clip.add_model_config(CONFIG)
        clip = clip or load_open_clip(spec, reads_config=False)
        super().__init__(spec, clip, NaFlexVit, "SigLIP NaFlex ViT")

    def fits(self) -> bool:
        """Return whether patches are embedded by just one product and a learned table, too."""
        embeds = self.trunk.embeds
        return (
            super().fits()
            and embeds.is_linear
            and embeds.norm_input is None
            and isinstance(embeds.norm, nn.Identity)
            and embeds.pos_embed_type == "learned"
            and getattr(embeds, "channels_last", True)
            and getattr(self.trunk, "rope", None) is None
        )

    def embedding_sizes(self) -> dict[str, int]:
        """Return `patch_px` and `image_px` as the trunk was built with them."""
        embeds = self.trunk.embeds
        side_px = embeds.patch_size[0]
        return {"patch_px": side_px, "image_px": embeds.pos_embed.shape[1] * side_px}

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens before the first block, `(B, N, D)`."""
        p = self.sizes.patch_px
        rows, columns = images.shape[-2] // p, images.shape[-1] // p
        pixels = images.reshape(len(images), 3, rows, p, columns, p)
        patches = pixels.permute(0, 2, 4, 3, 5, 1).reshape(len(images), rows * columns, -1)
        x: Tensor = self.trunk.embeds.proj(patches)
        return x + self._positions((rows, columns)).to(x.dtype)

    def parts(self) -> base.Parts:
        """Return the trainable parts."""
        return self.parts_with(self.trunk.embeds.pos_embed, self.trunk.embeds.proj)

    def stated_config(self) -> Config:
        """Return the config that the installed open_clip has of the model."""
        own = open_clip.get_model_config(self.clip.architecture)
        return {**super().stated_config(), "model_cfg": own}

    def _positions(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return position embeddings for a grid, `(1, N, D)`: bilinear by size, antialiased.

        As timm's own forward does it; timm 1.0.17 did it bicubically.
        """
        maps: Tensor = self.trunk.embeds.pos_embed.permute(0, 3, 1, 2)
        if maps.shape[-2:] != grid_hw:
            maps = F.interpolate(maps, size=grid_hw, mode="bilinear", antialias=True)
        return maps.flatten(2).transpose(1, 2)
