"""Any open_clip ViT with a class token, read densely as MaskCLIP does.

Shape legend: B images, h x w patches, N = 1 + h * w tokens, D width, C channels.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spar_bench.backbones.base import (
    Exported,
    Library,
    Parts,
    fit_sides,
    require_same_text,
    under_any_prefix,
)
from spar_bench.components.backbone import (
    card,
    known_sizes,
    require_known_model,
    shapes_of,
    weights_of,
)
from spar_bench.components.exporting import open_clip_folder, timm_clip_folder
from spar_bench.components.open_clip_config import stated_preprocessing
from spar_bench.components.open_clip_io import open_clip_model, tokenizer
from spar_bench.components.sizes import Sizes
from spar_bench.components.weights import LEGACY, Weights
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec
from spar_bench.values import PositionRule

VERSION = 1
MODELS_OF = "open_clip"
SHAPES = {
    "visual.conv1.weight": "width 3 patch_px patch_px",
    "visual.positional_embedding": "n_positions width",
}


class Backbone:
    """An open_clip CLIP with a plain ViT, from a folder as `local-dir:` reads it, or from a file.

    Raises:
        NotReady: its weights are missing, or it is not a ViT with a class token.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        shapes = shapes_of(spec)  # has its own message for a missing path
        weights = weights_of(spec)
        require_known_model(spec, weights)
        self._build(spec, open_clip_model(weights, card(spec.name).model, shapes), weights)

    def _build(self, spec: BackboneSpec, model: nn.Module, weights: Weights) -> None:
        visual: Any = model.visual
        found = self._sizes_of(visual, weights)
        self.sizes = known_sizes(spec)
        _require_sizes(found, self.sizes, spec, weights)
        self.model: Any = model.eval()
        self.visual: nn.Module = visual
        self._tower: Any = visual  # open_clip states no types
        self.mean, self.std = preprocessing(spec, weights)
        self._weights, self._architecture = weights, card(spec.name).model

    def _sizes_of(self, visual: Any, weights: Weights) -> dict[str, int]:
        """Return the sizes of an image tower; NotReady if this read-out does not fit it."""
        if not _is_plain_vit(visual):
            raise NotReady(
                f"backbone.path: must hold a plain open_clip ViT with a class token, but "
                f"{weights.place} has a {type(visual).__name__}; use another backbone plug-in"
            )
        blocks = visual.transformer.resblocks
        return {
            "patch_px": visual.patch_size[0],
            "image_px": visual.image_size[0],
            "width": visual.conv1.out_channels,
            "depth": len(blocks),
            "heads": blocks[0].attn.num_heads,
            "channels": visual.output_dim,
        }

    @cached_property
    def _tokenizer(self) -> Any:
        """Built for the first prompt: training a student needs none."""
        return tokenizer(self._weights, self._architecture)

    def to(self, device: torch.device) -> None:
        """Move both towers to a device."""
        self.model.to(device)

    def features(self, images: Tensor) -> Tensor:
        """Encode normalised images `(B, 3, H, W)` to `(B, C, h, w)` in the text's space.

        All blocks but the last run as they are; in the last, attention is replaced by its value
        path, so that each token keeps its own place. Source: MaskCLIP, arXiv 2112.01071.
        """
        visual = self._tower
        images = fit_sides(images, self.sizes)
        grid_hw = self.sizes.grid_hw((images.shape[-2], images.shape[-1]))
        x = visual.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        x = visual.ln_pre(x + self._positions(grid_hw).to(x.dtype))
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            x = block(x)
        x = _value_path(last, x[:, 1:])
        projected: Tensor = visual.ln_post(x) @ visual.proj
        return projected.transpose(1, 2).reshape(len(x), -1, *grid_hw)

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Embed prompts to `(T, C)`, normalised."""
        device = next(self.model.parameters()).device
        with torch.no_grad():
            embedded: Tensor = self.model.encode_text(
                self.tokenize(prompts).to(device), normalize=True
            )
        return embedded

    def tokenize(self, prompts: list[str]) -> Tensor:
        """Return the token ids of prompts, `(T, context length)`."""
        ids: Tensor = self._tokenizer(prompts)
        return ids

    def parts(self) -> Parts:
        """Return the trainable parts by open_clip's own names for them."""
        visual, blocks = self._tower, list(self._tower.transformer.resblocks)
        return Parts(
            blocks=[list(block.parameters()) for block in blocks],
            attention=[[*block.ln_1.parameters(), *block.attn.parameters()] for block in blocks],
            mlp=[[*block.ln_2.parameters(), *block.mlp.parameters()] for block in blocks],
            position_embedding=[visual.positional_embedding],
            patch_embedding=list(visual.conv1.parameters()),
        )

    def from_checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the image tower's weights from a checkpoint, whatever its prefix."""
        others = ("visual.", "logit_")
        own = {k: v for k, v in self.model.state_dict().items() if not k.startswith(others)}
        require_same_text(own, state)
        return under_any_prefix(self.visual.state_dict(), state)

    def export(self, library: Library) -> Exported:
        """Return the model as open_clip's or timm's `local-dir:` reads it."""
        if library == "open_clip":
            return open_clip_folder(self, self.model, self._weights, self._architecture)
        return timm_clip_folder(self)

    def load_visual(self, state: Mapping[str, Tensor]) -> None:
        """Replace the image tower's weights; every name must match."""
        self.visual.load_state_dict(state, strict=True)

    def _positions(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return position embeddings for a grid, `(1, N, D)`; the class token has its own."""
        table: Tensor = self._tower.positional_embedding
        native: tuple[int, int] = self._tower.grid_size
        patches = resampled(table[1:], native, grid_hw, self.sizes.position_embedding)
        return torch.cat([table[:1], patches]).unsqueeze(0)


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
    if rule == "size":
        maps = F.interpolate(maps, size=grid_hw, mode="bicubic")
    else:
        factor = [(n + 0.1) / full for n, full in zip(grid_hw, native, strict=True)]
        maps = F.interpolate(maps, scale_factor=factor, mode="bicubic")
        assert maps.shape[-2:] == grid_hw, "0.1 keeps the floor at the grid"
    return maps.flatten(2).squeeze(0).T


def preprocessing(
    spec: BackboneSpec, weights: Weights
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation: the config's, else the data file's, else CLIP's own."""
    if spec.preprocessing == "legacy":
        return LEGACY, LEGACY
    stated, known = stated_preprocessing(weights), card(spec.name)
    mean = stated.get("mean") or known.mean or open_clip.OPENAI_DATASET_MEAN
    std = stated.get("std") or known.std or open_clip.OPENAI_DATASET_STD
    return tuple(mean), tuple(std)


def _require_sizes(
    found: Mapping[str, int], sizes: Sizes, spec: BackboneSpec, weights: Weights
) -> None:
    """Check the loaded model against the sizes that plans are made with."""
    for name, value in found.items():
        own = getattr(sizes, name)
        if value != own and weights.path is None:
            raise NotReady(
                f"backbone {spec.name}: {name}: must be {value}, as in open_clip's "
                f"{card(spec.name).model}, but is {own}; correct it, or name the model that it "
                "belongs to"
            )
        if value != own:
            raise NotReady(
                f"backbone.path: must hold a model of {name} {own}, but {weights.path} has "
                f"{value}; name other weights, or the backbone they belong to"
            )


def _is_plain_vit(visual: Any) -> bool:
    """Tell whether a tower is open_clip's own ViT, as CLIP has it, without an attention pool."""
    return (
        isinstance(visual, open_clip.transformer.VisionTransformer)
        and visual.attn_pool is None
        and all(
            isinstance(block, open_clip.transformer.ResidualAttentionBlock)
            for block in visual.transformer.resblocks
        )
    )


def _value_path(block: Any, x: Tensor) -> Tensor:
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
