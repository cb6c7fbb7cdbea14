"""SigLIP2 as open_clip publishes it: a timm ViT without class token, read past its pooling head.

Shape legend: B images, h x w patches, N = h * w tokens, D width; C = D channels.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.layers import AttentionPoolLatent
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spar_bench.backbones import base
from spar_bench.backbones._open_clip import OpenClipBackbone
from spar_bench.backbones._plain_vit import resampled
from spar_bench.backbones._timm import timm_export
from spar_bench.components.open_clip_io import OpenClipModel, load_open_clip, require_sizes
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec

VERSION = 2
BUILDS_ON = "openclip"
NEEDS_DATA_FILE = True
MODELS_OF = "open_clip"
SHAPES = {
    "visual.trunk.patch_embed.proj.weight": "width 3 patch_px patch_px",
    "visual.trunk.pos_embed": "1 n_positions width",
}


class SiglipBackbone(OpenClipBackbone):
    """A SigLIP whose image tower is a timm trunk with an open attention pool.

    `kind` says in messages what its trunk must be. A subclass embeds the patches.

    Raises:
        NotReady: its weights have another kind of image tower.
    """

    def __init__(
        self, spec: BackboneSpec, clip: OpenClipModel, trunk_type: type[nn.Module], kind: str
    ) -> None:
        super().__init__(spec, clip)
        self.trunk: Any = getattr(clip.visual, "trunk", None)
        if not isinstance(self.trunk, trunk_type) or not self.fits():
            raise NotReady(
                f"backbone.path: must hold a timm {kind}, but {clip.weights.place} has a "
                f"{type(self.trunk or clip.visual).__name__}; use another backbone plug-in"
            )
        own = {**self.embedding_sizes(), **_sizes_of(self.trunk)}
        require_sizes(own, self.sizes, spec, clip.weights)

    def fits(self) -> bool:
        """Return whether the trunk is as the read-out expects it."""
        return has_open_head(self.clip.visual)

    @abstractmethod
    def embedding_sizes(self) -> dict[str, int]:
        """Return `patch_px` and `image_px` as the trunk was built with them."""

    def blocks(self, grid_hw: tuple[int, int]) -> Sequence[base.Block]:
        """Return all blocks of the trunk."""
        return list(self.trunk.blocks)

    def read(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return dense features `(B, C, h, w)` in the text's space.

        In the pooling head nothing is pooled: each token goes through alone, as a value, so that it
        keeps its own place. Source: SPAR, arXiv 2604.02252.
        """
        return base.on_grid(pool_values(self.trunk.attn_pool, self.trunk.norm(tokens)), grid_hw)

    def parts_with(self, positions: nn.Parameter, patches: nn.Module) -> base.Parts:
        """Return the trainable parts by timm's own names; the pooling head is in none of them."""
        blocks = list(self.trunk.blocks)
        return base.Parts(
            blocks=[list(block.parameters()) for block in blocks],
            attention=[[*block.norm1.parameters(), *block.attn.parameters()] for block in blocks],
            mlp=[[*block.norm2.parameters(), *block.mlp.parameters()] for block in blocks],
            position_embedding=[positions],
            patch_embedding=list(patches.parameters()),
        )

    def timm_export(self) -> base.Exported:
        """Return the image tower as timm reads it, without a text tower."""
        name, state = self.trunk.pretrained_cfg["architecture"], dict(self.trunk.state_dict())
        return timm_export(self, name, {"num_classes": 0}, state, self.trunk)


class Backbone(SiglipBackbone):
    """A SigLIP2 of open_clip; its data file says which one.

    Raises:
        NotReady: its weights are missing, or have another kind of image tower.
    """

    def __init__(self, spec: BackboneSpec, clip: OpenClipModel | None = None) -> None:
        kind = "SigLIP ViT (attention pool, no class token)"
        super().__init__(spec, clip or load_open_clip(spec), VisionTransformer, kind)

    def embedding_sizes(self) -> dict[str, int]:
        """Return `patch_px` and `image_px` as the trunk was built with them."""
        patches = self.trunk.patch_embed
        return {"patch_px": patches.patch_size[0], "image_px": patches.img_size[0]}

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens before the first block, `(B, N, D)`.

        timm's own resampling of positions is not used, since it antialiases.
        """
        patches = self.trunk.patch_embed
        maps = patches.proj(images)
        x: Tensor = maps.flatten(2).transpose(1, 2)
        rule, grid_hw = self.sizes.position_embedding, (maps.shape[-2], maps.shape[-1])
        table = resampled(self.trunk.pos_embed[0], patches.grid_size, grid_hw, rule)
        # In float32 under autocast too, as in timm, and so is everything added to it.
        return x + table.unsqueeze(0)

    def parts(self) -> base.Parts:
        """Return the trainable parts."""
        return self.parts_with(self.trunk.pos_embed, self.trunk.patch_embed.proj)


def pool_values(pool: Any, x: Tensor) -> Tensor:
    """Send tokens `(B, N, D)` through an attention pool as values alone, `(B, N, D)`.

    Value projection (the second half of `kv`), output projection, and the residual MLP.
    """
    bias = pool.kv.bias
    value = F.linear(x, pool.kv.weight.chunk(2)[1], None if bias is None else bias.chunk(2)[1])
    projected = pool.proj(value)
    dense: Tensor = projected + pool.mlp(pool.norm(projected))
    return dense


def _sizes_of(trunk: Any) -> dict[str, int]:
    """Return the sizes of a trunk that do not depend on how it embeds patches."""
    return {
        "width": trunk.embed_dim,
        "depth": len(trunk.blocks),
        "heads": trunk.blocks[0].attn.num_heads,
        "channels": trunk.attn_pool.proj.out_features,
    }


def has_open_head(visual: Any) -> bool:
    """Return whether an image tower ends like SigLIP's: final norm, attention pool, nothing more.

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
