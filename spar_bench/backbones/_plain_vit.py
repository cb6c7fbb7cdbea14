"""open_clip's own ViT with a class token, read densely as MaskCLIP does.

Shape legend: B images, h x w patches, N = 1 + h * w tokens, D width, C channels.
"""

from collections.abc import Sequence
from typing import Any, assert_never

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench.backbones.base import Block, Parts, on_grid
from spar_bench.values import PositionRule


class PlainVit:
    """An image tower, and how its position embeddings are resampled."""

    def __init__(self, visual: Any, rule: PositionRule) -> None:
        self._visual, self._rule = visual, rule

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens before the first block, `(B, N, D)`, the class token first."""
        visual = self._visual
        maps = visual.conv1(images)
        x = maps.flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        table, native = visual.positional_embedding, visual.grid_size
        patches = resampled(table[1:], native, (maps.shape[-2], maps.shape[-1]), self._rule)
        positions = torch.cat([table[:1], patches]).unsqueeze(0)
        embedded: Tensor = visual.ln_pre(x + positions.to(x.dtype))
        return embedded

    def blocks(self) -> Sequence[Block]:
        """Return all blocks but the last, which is a part of `read`."""
        return list(self._visual.transformer.resblocks)[:-1]

    def read(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return dense features `(B, C, h, w)` in the text's space.

        In the last block, attention is replaced by its value path, so that each token keeps its
        own place. Source: MaskCLIP, arXiv 2112.01071.
        """
        visual = self._visual
        x = value_path(visual.transformer.resblocks[-1], tokens[:, 1:])
        return on_grid(visual.ln_post(x) @ visual.proj, grid_hw)

    def parts(self) -> Parts:
        """Return the trainable parts by open_clip's own names for them."""
        visual, blocks = self._visual, list(self._visual.transformer.resblocks)
        return Parts(
            blocks=[list(block.parameters()) for block in blocks],
            attention=[[*block.ln_1.parameters(), *block.attn.parameters()] for block in blocks],
            mlp=[[*block.ln_2.parameters(), *block.mlp.parameters()] for block in blocks],
            position_embedding=[visual.positional_embedding],
            patch_embedding=list(visual.conv1.parameters()),
        )

    def sizes(self) -> dict[str, int]:
        """Return the sizes that the tower was built with."""
        visual, blocks = self._visual, self._visual.transformer.resblocks
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
