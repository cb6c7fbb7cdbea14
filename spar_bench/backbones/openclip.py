"""Any open_clip ViT with a class token, read densely as MaskCLIP does.

Shape legend: B images, h x w patches, N = 1 + h * w tokens, D width, C channels.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spar_bench.backbones import CONFIG_FILE, sizes
from spar_bench.backbones.base import Parts
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec

VERSION = 1


class Backbone:
    """An open_clip CLIP from a folder, as its `local-dir:` reads it.

    Raises:
        NotReady: the folder or its weights are missing, or it is not a ViT with a class token.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        if spec.path is None:
            raise NotReady(
                f"backbone.path: {spec.name} needs the folder of its weights, but none is given; "
                f"name one that holds {CONFIG_FILE}"
            )
        self._build(spec, open_clip_model(Path(spec.path)), Path(spec.path))

    def _build(self, spec: BackboneSpec, model: nn.Module, folder: Path) -> None:
        known = sizes(spec)
        assert known is not None, "an open_clip folder states its sizes"
        visual: Any = model.visual
        if not _is_plain_vit(visual):
            raise NotReady(
                f"backbone.path: must hold a plain open_clip ViT with a class token, but {folder} "
                f"has another {type(visual).__name__}; use another backbone plug-in"
            )
        self.sizes = known
        self.model: Any = model.eval()
        self.visual: nn.Module = visual
        self._tower: Any = visual  # open_clip states no types
        preprocess = config(folder)["preprocess_cfg"]
        self.mean, self.std = tuple(preprocess["mean"]), tuple(preprocess["std"])
        self._resample_by_size = spec.position_embedding == "size"
        self._folder = folder

    @cached_property
    def _tokenizer(self) -> Any:
        """Built when the first prompt comes: a student that trains meets none."""
        return open_clip.get_tokenizer(f"local-dir:{self._folder}")

    def to(self, device: torch.device) -> None:
        """Move both towers to a device."""
        self.model.to(device)

    def features(self, images: Tensor) -> Tensor:
        """Encode normalised images `(B, 3, H, W)` to `(B, C, h, w)` in the text's space.

        All blocks but the last run as they are; in the last, attention is replaced by its value
        path, so that each token keeps its own place. Source: MaskCLIP, arXiv 2112.01071.
        """
        visual = self._tower
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

    def load_visual(self, state: Mapping[str, Tensor]) -> None:
        """Replace the image tower's weights; every name must match."""
        self.visual.load_state_dict(state, strict=True)

    def _positions(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return position embeddings for a grid, `(1, N, D)`.

        Resampled bicubically without antialiasing, and only where the grid is not the native one:
        by the factor (grid + 0.1) / native, as the paper's code, or by size.
        """
        table: Tensor = self._tower.positional_embedding
        native: tuple[int, int] = self._tower.grid_size
        if grid_hw == native:
            return table.unsqueeze(0)
        maps = table[1:].T.reshape(1, -1, *native)
        if self._resample_by_size:
            resampled = F.interpolate(maps, size=grid_hw, mode="bicubic")
        else:
            factor = [(n + 0.1) / full for n, full in zip(grid_hw, native, strict=True)]
            resampled = F.interpolate(maps, scale_factor=factor, mode="bicubic")
            assert resampled.shape[-2:] == grid_hw, "0.1 keeps the floor at the grid"
        return torch.cat([table[:1], resampled.flatten(2).squeeze(0).T]).unsqueeze(0)


def config(folder: Path) -> dict[str, Any]:
    """Read a folder's `open_clip_config.json`; means of CLIP's own where it states none."""
    read: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    stated = read.get("preprocess_cfg", {})
    usual = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    return {**read, "preprocess_cfg": {**usual, **stated}}


def open_clip_model(folder: Path) -> nn.Module:
    """Load an open_clip model and its weights from a folder, without the network.

    Raises:
        NotReady: open_clip cannot read the folder.
    """
    try:
        model: nn.Module = open_clip.create_model(
            f"local-dir:{folder}", require_pretrained=True, weights_only=True
        )
        return model
    except Exception as error:  # a folder can be wrong in as many ways as torch has readers
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise NotReady(
            f"backbone.path: must be a folder that open_clip's `local-dir:` reads, but {folder}: "
            f"{reason}; put whole weights there, or name another folder"
        ) from error


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
