"""open_clip's own ViT with a class token, read densely as MaskCLIP does.

Shape legend: B images, h x w patches, N = 1 + h * w tokens, D width, C channels.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, assert_never

import open_clip
import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

from spar_bench.backbones._open_clip import OpenClipBackbone
from spar_bench.backbones._timm import timm_export
from spar_bench.backbones.base import Block, Exported, Parts, on_grid
from spar_bench.errors import SparBenchError
from spar_bench.values import PositionRule

_CLIP_VIT = "vit_base_patch16_clip_224"


class PlainVitBackbone(OpenClipBackbone):
    """A CLIP with open_clip's own ViT as its image tower."""

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens before the first block, `(B, N, D)`, the class token first."""
        visual, rule = self.clip.visual, self.sizes.position_embedding
        maps = visual.conv1(images)
        x = maps.flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        table, native = visual.positional_embedding, visual.grid_size
        patches = resampled(table[1:], native, (maps.shape[-2], maps.shape[-1]), rule)
        positions = torch.cat([table[:1], patches]).unsqueeze(0)
        embedded: Tensor = visual.ln_pre(x + positions.to(x.dtype))
        return embedded

    def blocks(self, grid_hw: tuple[int, int]) -> Sequence[Block]:
        """Return all blocks but the last, which is a part of `read`."""
        blocks = list(self.clip.visual.transformer.resblocks)[:-1]
        return [partial(attention_path, block) for block in blocks]

    def read(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return dense features `(B, C, h, w)` in the text's space.

        In the last block, attention is replaced by its value path, so that each token keeps its
        own place. Source: MaskCLIP, arXiv 2112.01071.
        """
        visual = self.clip.visual
        x = value_path(visual.transformer.resblocks[-1], tokens[:, 1:])
        return on_grid(visual.ln_post(x) @ visual.proj, grid_hw)

    def parts(self) -> Parts:
        """Return the trainable parts by open_clip's own names for them."""
        visual = self.clip.visual
        blocks = list(visual.transformer.resblocks)
        return Parts(
            blocks=[list(block.parameters()) for block in blocks],
            attention=[[*block.ln_1.parameters(), *block.attn.parameters()] for block in blocks],
            mlp=[[*block.ln_2.parameters(), *block.mlp.parameters()] for block in blocks],
            position_embedding=[visual.positional_embedding],
            patch_embedding=list(visual.conv1.parameters()),
        )

    def timm_export(self) -> Exported:
        """Return the image tower as timm reads it; the projection is the classifier head.

        Raises:
            SparBenchError: timm has no such ViT.
        """
        visual, sizes = self.clip.visual, self.sizes
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
        return timm_export(self, _CLIP_VIT, arguments, state, visual)


def sizes_of(visual: Any) -> dict[str, int]:
    """Return the sizes that an image tower was built with."""
    blocks = visual.transformer.resblocks
    return {
        "patch_px": visual.patch_size[0],
        "image_px": visual.image_size[0],
        "width": visual.conv1.out_channels,
        "depth": len(blocks),
        "heads": blocks[0].attn.num_heads,
        "channels": visual.output_dim,
    }


def is_plain_vit(visual: Any) -> bool:
    """Return whether a tower is open_clip's own ViT, as CLIP has it, without an attention pool."""
    return (
        isinstance(visual, open_clip.transformer.VisionTransformer)
        and visual.attn_pool is None
        and all(
            isinstance(block, open_clip.transformer.ResidualAttentionBlock)
            for block in visual.transformer.resblocks
        )
    )


def resampled(
    table: Tensor, native: tuple[int, int], grid_hw: tuple[int, int], rule: PositionRule
) -> Tensor:
    """Return the position embeddings of a native grid, `(n, D)`, for another grid, `(h * w, D)`.

    Resampled bicubically without antialiasing, and only where the grid is not the native one:
    by the factor (grid + 0.1) / native, as the paper does CLIP's, or by size.
    """
    if grid_hw == native:
        return table
    maps = table.T.reshape(1, -1, *native)
    match rule:
        case "size":
            maps = F.interpolate(maps, size=grid_hw, mode="bicubic")
        case "scale_factor":
            factor = [(n + 0.1) / full for n, full in zip(grid_hw, native, strict=True)]
            maps = F.interpolate(maps, scale_factor=factor, mode="bicubic")
            assert maps.shape[-2:] == grid_hw, "0.1 keeps the floor at the grid"
        case "rope":
            raise ValueError("position_embedding: rope has no table to resample")
        case never:
            assert_never(never)
    return maps.flatten(2).squeeze(0).T


def attention_path(block: Any, x: Tensor) -> Tensor:
    """Run a block on tokens `(B, N, D)`.

    The same as calling it, but with torch's fused attention, where `nn.MultiheadAttention` may take
    a slower way of its own: on CPUs, 1.6 times as long for a single pass over 1,281 tokens.
    """
    attention = block.attn
    n_batch, n_tokens, width = x.shape
    projected = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    heads = projected.view(n_batch, n_tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2)
    x = x + block.ls_1(attention.out_proj(mixed.reshape(n_batch, n_tokens, width)))
    after: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return after


def value_path(block: Any, x: Tensor) -> Tensor:
    """Run a block with its attention replaced by value and output projection, `(B, n, D)`."""
    attention = block.attn
    bias = attention.in_proj_bias
    value = F.linear(
        block.ln_1(x),
        attention.in_proj_weight.chunk(3)[2],
        None if bias is None else bias.chunk(3)[2],
    )
    x = x + block.ls_1(attention.out_proj(value))
    last: Tensor = block.ls_2(block.mlp(block.ln_2(x)))
    return x + last
