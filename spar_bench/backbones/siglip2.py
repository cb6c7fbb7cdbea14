"""SigLIP2 as open_clip publishes it: a timm ViT without class token, read past its pooling head.

Shape legend: B images, h x w patches, N = h * w tokens, D width; C = D channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from timm.layers import AttentionPoolLatent
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spar_bench.backbones import base
from spar_bench.backbones._plain_vit import resampled
from spar_bench.components.backbone import known_sizes
from spar_bench.components.open_clip_io import (
    OpenClipModel,
    load_open_clip,
    preprocessing,
    require_sizes,
    timm_export,
)
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


class Backbone(base.Backbone):
    """A SigLIP2 of open_clip; its data file says which one.

    Raises:
        NotReady: its weights are missing, or have another kind of image tower.
    """

    def __init__(self, spec: BackboneSpec, clip: OpenClipModel | None = None) -> None:
        self._clip = clip = clip or load_open_clip(spec)
        self.model, self.visual, self.sizes = clip.model, clip.visual, known_sizes(spec)
        trunk: Any = getattr(clip.visual, "trunk", None)
        self._trunk = trunk
        if not isinstance(trunk, VisionTransformer) or not has_open_head(clip.visual):
            raise NotReady(
                "backbone.path: must hold a timm SigLIP ViT (attention pool, no class token), "
                f"but {clip.weights.place} has a {type(trunk or clip.visual).__name__}; use "
                "another backbone plug-in"
            )
        patches: Any = trunk.patch_embed
        own = {"patch_px": patches.patch_size[0], "image_px": patches.img_size[0]}
        require_sizes({**own, **sizes_of_trunk(trunk)}, self.sizes, spec, clip.weights)
        self.mean, self.std = preprocessing(spec, clip.weights)

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens before the first block, `(B, N, D)`.

        timm's own resampling of positions is not used, since it antialiases.
        """
        patches: Any = self._trunk.patch_embed
        maps = patches.proj(images)
        x: Tensor = maps.flatten(2).transpose(1, 2)
        rule, grid_hw = self.sizes.position_embedding, (maps.shape[-2], maps.shape[-1])
        table = resampled(self._trunk.pos_embed[0], patches.grid_size, grid_hw, rule)
        # In float32 under autocast too, as in timm, and so is everything added to it.
        return x + table.unsqueeze(0)

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
        patches: Any = self._trunk.patch_embed
        return parts_of(self._trunk, [self._trunk.pos_embed], list(patches.proj.parameters()))

    def from_checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the image tower's weights from a checkpoint, whatever its prefix."""
        return self._clip.image_weights(state)

    def export(self, library: base.Library) -> base.Exported:
        """Return the model as open_clip's `local-dir:` reads it, or its image tower as timm's."""
        return export_siglip(self._clip, self, library)


def read_values(trunk: Any, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Return dense features `(B, C, h, w)` of a trunk's tokens `(B, N, D)`.

    In the pooling head nothing is pooled: each token goes through alone, as a value, so that it
    keeps its own place. Source: SPAR, arXiv 2604.02252.
    """
    return base.on_grid(pool_values(trunk.attn_pool, trunk.norm(tokens)), grid_hw)


def pool_values(pool: Any, x: Tensor) -> Tensor:
    """Send tokens `(B, N, D)` through an attention pool as values alone, `(B, N, D)`.

    Value projection (the second half of `kv`), output projection, and the residual MLP.
    """
    bias = pool.kv.bias
    value = F.linear(x, pool.kv.weight.chunk(2)[1], None if bias is None else bias.chunk(2)[1])
    projected = pool.proj(value)
    dense: Tensor = projected + pool.mlp(pool.norm(projected))
    return dense


def parts_of(trunk: Any, positions: list[nn.Parameter], patches: list[nn.Parameter]) -> base.Parts:
    """Return the parts of a timm trunk, given those of its embedding."""
    blocks = list(trunk.blocks)
    return base.Parts(
        blocks=[list(block.parameters()) for block in blocks],
        attention=[[*block.norm1.parameters(), *block.attn.parameters()] for block in blocks],
        mlp=[[*block.norm2.parameters(), *block.mlp.parameters()] for block in blocks],
        position_embedding=positions,
        patch_embedding=patches,
    )


def export_siglip(
    clip: OpenClipModel, backbone: base.Backbone, library: base.Library
) -> base.Exported:
    """Return a model as open_clip's `local-dir:` reads it, or its image tower as timm's."""
    if library == "open_clip":
        return clip.exported(backbone)
    trunk = clip.visual.trunk
    name = trunk.pretrained_cfg["architecture"]
    return timm_export(backbone, name, {"num_classes": 0}, dict(trunk.state_dict()), trunk)


def sizes_of_trunk(trunk: Any) -> dict[str, int]:
    """Return the sizes of a timm trunk that do not depend on how it embeds patches."""
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
