"""DINO's ViT-B/16: the values of its last block, by which LPOSS tells what is similar.

Shape legend: H x W pixels, h x w patches, N = 1 + h * w tokens, D width.
"""

from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from spar_bench.components.tensors import read_listed
from spar_bench.components.weights import Weights
from spar_bench.refiners.base import Guidance

_PLUGIN = Path(__file__).with_name("lposs.py")
_MODEL = "vit_base_patch16_224.dino"
PATCH_PX = 16


class Dino:
    """DINO with published weights, under its own names, which are also timm's; or random ones.

    Raises:
        NotReady: the weights are not those of DINO's ViT-B/16.
    """

    def __init__(self, weights: Weights, device: torch.device) -> None:
        # Without values where they are read: to draw them takes seconds.
        place = torch.device("cpu" if weights.is_random else "meta")
        with torch.random.fork_rng(devices=[]), place:
            torch.manual_seed(weights.seed)
            self._vit = timm.create_model(_MODEL, num_classes=0)
        if not weights.is_random:
            self._vit.load_state_dict(read_listed(_PLUGIN, weights), assign=True)
        self._vit.eval().float().requires_grad_(False).to(device)
        self.n_params = sum(parameter.numel() for parameter in self._vit.parameters())

    def values(self, guidance: Guidance) -> Tensor:
        """Return the values of the patches in the last block, all heads, `(D, h, w)`.

        The image is padded with black to whole patches. DINO sees it in float32.
        """
        vit = self._vit
        maps = vit.patch_embed.proj(_pixels(guidance)[None])
        grid_hw = (maps.shape[-2], maps.shape[-1])
        tokens = torch.cat([vit.cls_token, maps.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + _positions(vit.pos_embed, grid_hw)
        for block in vit.blocks[:-1]:
            tokens = block(tokens)
        last = vit.blocks[-1]
        weight, bias = (part.chunk(3)[2] for part in (last.attn.qkv.weight, last.attn.qkv.bias))
        values = F.linear(last.norm1(tokens[0, 1:]), weight, bias)
        return values.T.reshape(-1, *grid_hw)


def _pixels(guidance: Guidance) -> Tensor:
    """Return what DINO sees, `(3, H, W)`: padded first and normalised then, so with black."""
    no_mean, no_std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    rgb = guidance.normalised(no_mean, no_std)
    down, right = (-side % PATCH_PX for side in rgb.shape[-2:])
    padded = Guidance(F.pad(rgb, (0, right, 0, down)), no_mean, no_std)
    return padded.normalised(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def _positions(table: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Return the position embeddings `(1, N, D)` of a grid, resampled as DINO does.

    That is bicubically without antialiasing, by the factor (grid + 0.1) / native.
    Source: facebookresearch/dino, vision_transformer.py @04c0ad9.
    """
    side = round((table.shape[1] - 1) ** 0.5)
    if grid_hw == (side, side):
        return table
    native = table[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
    factor = [(n + 0.1) / side for n in grid_hw]
    maps = F.interpolate(native, scale_factor=factor, mode="bicubic")
    assert tuple(maps.shape[-2:]) == grid_hw, "0.1 keeps the floor at the grid"
    return torch.cat([table[:, :1], maps.flatten(2).transpose(1, 2)], dim=1)
