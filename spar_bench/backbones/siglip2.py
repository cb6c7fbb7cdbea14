"""SigLIP2 as open_clip publishes it: a timm ViT without class token, read past its pooling head.

Shape legend: B images, h x w patches, N = h * w tokens, D width; C = D channels.
"""

from typing import Any

import torch.nn.functional as F
from timm.layers import AttentionPoolLatent
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spar_bench.backbones.base import Exported, Library, Parts, fit_sides
from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.backbones.openclip import resampled
from spar_bench.components.exporting import timm_folder
from spar_bench.components.weights import Weights
from spar_bench.errors import NotReady

VERSION = 2
BUILDS_ON = "openclip"
NEEDS_DATA_FILE = True
MODELS_OF = "open_clip"
SHAPES = {
    "visual.trunk.patch_embed.proj.weight": "width 3 patch_px patch_px",
    "visual.trunk.pos_embed": "1 n_positions width",
}


class Backbone(OpenClip):
    """A SigLIP2 of open_clip; its data file says which one.

    Raises:
        NotReady: its weights are missing, or have another kind of image tower.
    """

    def _sizes_of(self, visual: Any, weights: Weights) -> dict[str, int]:
        trunk = getattr(visual, "trunk", None)
        if not isinstance(trunk, VisionTransformer) or not has_open_head(visual):
            raise NotReady(
                "backbone.path: must hold a timm SigLIP ViT (attention pool, no class token), "
                f"but {weights.place} has a {type(trunk or visual).__name__}; use another "
                "backbone plug-in"
            )
        patches: Any = trunk.patch_embed
        return {
            "patch_px": patches.patch_size[0],
            "image_px": patches.img_size[0],
            **sizes_of_trunk(trunk),
        }

    def features(self, images: Tensor) -> Tensor:
        """Encode normalised images `(B, 3, H, W)` to `(B, C, h, w)` in the text's space.

        The trunk runs as it is, its final norm included. In its pooling head nothing is pooled:
        each token goes through alone, as a value, so that it keeps its own place.
        Source: SPAR, arXiv 2604.02252.
        """
        images, trunk = fit_sides(images, self.sizes), self._tower.trunk
        grid_hw = self.sizes.grid_hw((images.shape[-2], images.shape[-1]))
        x = trunk.norm(trunk.blocks(self._embed(images, grid_hw)))
        dense = pool_values(trunk.attn_pool, x)
        return dense.transpose(1, 2).reshape(len(dense), -1, *grid_hw)

    def parts(self) -> Parts:
        """Return the trainable parts by timm's own names; the pooling head is in none of them."""
        trunk = self._tower.trunk
        return parts_of(trunk, [trunk.pos_embed], list(trunk.patch_embed.proj.parameters()))

    def export(self, library: Library) -> Exported:
        """Return the model as open_clip's `local-dir:` reads it, or its image tower as timm's."""
        if library == "open_clip":
            return super().export(library)
        trunk = self._tower.trunk
        name = trunk.pretrained_cfg["architecture"]
        return timm_folder(self, name, {"num_classes": 0}, dict(trunk.state_dict()), trunk)

    def _embed(self, images: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return the tokens before the first block, `(B, N, D)`; sides are whole patches."""
        x: Tensor = self._tower.trunk.patch_embed.proj(images).flatten(2).transpose(1, 2)
        # In float32 under autocast too, as in timm, and so is everything added to it.
        return x + self._positions(grid_hw)

    def _positions(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return position embeddings for a grid, `(1, N, D)`.

        timm's own resampling is not used, since it antialiases.
        """
        trunk = self._tower.trunk
        native, rule = trunk.patch_embed.grid_size, self.sizes.position_embedding
        return resampled(trunk.pos_embed[0], native, grid_hw, rule).unsqueeze(0)


def pool_values(pool: Any, x: Tensor) -> Tensor:
    """Send tokens `(B, N, D)` through an attention pool as values alone, `(B, N, D)`.

    Value projection (the second half of `kv`), output projection, and the residual MLP.
    """
    bias = pool.kv.bias
    value = F.linear(x, pool.kv.weight.chunk(2)[1], None if bias is None else bias.chunk(2)[1])
    projected = pool.proj(value)
    dense: Tensor = projected + pool.mlp(pool.norm(projected))
    return dense


def parts_of(trunk: Any, positions: list[nn.Parameter], patches: list[nn.Parameter]) -> Parts:
    """Return the parts of a timm trunk, given those of its embedding."""
    blocks = list(trunk.blocks)
    return Parts(
        blocks=[list(block.parameters()) for block in blocks],
        attention=[[*block.norm1.parameters(), *block.attn.parameters()] for block in blocks],
        mlp=[[*block.norm2.parameters(), *block.mlp.parameters()] for block in blocks],
        position_embedding=positions,
        patch_embedding=patches,
    )


def sizes_of_trunk(trunk: Any) -> dict[str, int]:
    """Return the sizes of a timm trunk that do not depend on how it embeds patches."""
    return {
        "width": trunk.embed_dim,
        "depth": len(trunk.blocks),
        "heads": trunk.blocks[0].attn.num_heads,
        "channels": trunk.attn_pool.proj.out_features,
    }


def has_open_head(visual: Any) -> bool:
    """Tell whether an image tower ends like SigLIP's: final norm, attention pool, nothing more.

    Its tokens are those of patches, with nothing else done to them before the first block.
    """
    trunk, pool = visual.trunk, visual.trunk.attn_pool
    untouched = (trunk.norm_pre, trunk.fc_norm, trunk.head)
    return (
        isinstance(pool, AttentionPoolLatent)
        and pool.pos_embed is None
        and trunk.num_prefix_tokens == 0
        and all(isinstance(module, nn.Identity) for module in untouched)
        and len(visual.head) == 0
    )
