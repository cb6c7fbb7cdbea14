"""SigLIP's dense read-out from the names in a state dict alone, without our code or timm.

In float64, with resampling spelled out as matrices.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.backbones.resampling_reference import cubic, triangle

State = dict[str, Tensor]


def bicubic_positions(table: Tensor, grid_hw: tuple[int, int], *, by_size: bool) -> Tensor:
    """Resample a table `(n, n, D)` to `(h, w, D)`, by size or by the factor (grid + 0.1) / n."""
    native = len(table)
    if grid_hw == (native, native):
        return table
    rows, columns = (cubic(native, n, step=native / (n if by_size else n + 0.1)) for n in grid_hw)
    return torch.einsum("hi,wj,ijd->hwd", rows, columns, table)


def bilinear_positions(table: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Resample a table `(n, n, D)` to `(h, w, D)` as NaFlex does."""
    rows, columns = (triangle(len(table), n) for n in grid_hw)
    return torch.einsum("hi,wj,ijd->hwd", rows, columns, table)


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(x: Tensor, state: State, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention(x: Tensor, state: State, name: str, n_heads: int) -> Tensor:
    """Mix tokens `(N, D)`, a head and a token at a time."""
    q, k, v = linear(x, state, f"{name}.qkv").chunk(3, dim=-1)
    side = x.shape[-1] // n_heads
    heads = []
    for head in range(n_heads):
        own = slice(head * side, (head + 1) * side)
        rows = [(k[:, own] @ q[i, own] / side**0.5).softmax(0) @ v[:, own] for i in range(len(x))]
        heads.append(torch.stack(rows))
    return linear(torch.cat(heads, dim=-1), state, f"{name}.proj")


def encode(
    state: State,
    image: Tensor,
    *,
    embed: Callable[[State, Tensor, tuple[int, int]], Tensor],
    activation: Callable[[Tensor], Tensor] = F.gelu,
    patch_px: int = 4,
    depth: int = 3,
    n_heads: int = 2,
) -> Tensor:
    """Read an image `(3, H, W)`, padded with zeros to whole patches, to features `(D, h, w)`."""
    height, width = (-side % patch_px for side in image.shape[-2:])
    padded = F.pad(image.double(), (0, width, 0, height))
    grid_hw = padded.shape[-2] // patch_px, padded.shape[-1] // patch_px

    def mlp(x: Tensor, name: str) -> Tensor:
        return linear(activation(linear(x, state, f"{name}.fc1")), state, f"{name}.fc2")

    x = embed(state, padded, grid_hw)
    for index in range(depth):
        name = f"trunk.blocks.{index}"
        x = x + attention(norm(x, state, f"{name}.norm1"), state, f"{name}.attn", n_heads)
        x = x + mlp(norm(x, state, f"{name}.norm2"), f"{name}.mlp")
    x = norm(x, state, "trunk.norm")
    value = linear(x, state, "trunk.attn_pool.kv")[:, x.shape[-1] :]
    out = linear(value, state, "trunk.attn_pool.proj")
    out = out + mlp(norm(out, state, "trunk.attn_pool.norm"), "trunk.attn_pool.mlp")
    return out.T.reshape(-1, *grid_hw)


def embed_by_convolution(
    state: State, image: Tensor, grid_hw: tuple[int, int], *, by_size: bool = True
) -> Tensor:
    """Return SigLIP's tokens before the first block, `(N, D)`, a patch at a time."""
    weight, bias = state["trunk.patch_embed.proj.weight"], state["trunk.patch_embed.proj.bias"]
    patch_px, native = weight.shape[-1], math.isqrt(state["trunk.pos_embed"].shape[1])
    tokens = [
        torch.einsum("dcij,cij->d", weight, patch) + bias for patch in patches(image, patch_px)
    ]
    table = state["trunk.pos_embed"].reshape(native, native, -1)
    positions = bicubic_positions(table, grid_hw, by_size=by_size)
    return torch.stack(tokens) + positions.flatten(0, 1)


def embed_by_product(state: State, image: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Return NaFlex's tokens before the first block, `(N, D)`: colours vary fastest in a patch."""
    patch_px = math.isqrt(state["trunk.embeds.proj.weight"].shape[1] // 3)
    tokens = [
        linear(patch.permute(1, 2, 0).flatten(), state, "trunk.embeds.proj")
        for patch in patches(image, patch_px)
    ]
    positions = bilinear_positions(state["trunk.embeds.pos_embed"][0], grid_hw)
    return torch.stack(tokens) + positions.flatten(0, 1)


def patches(image: Tensor, side_px: int) -> list[Tensor]:
    """Cut an image into patches `(3, p, p)`, row by row."""
    rows = range(0, image.shape[-2], side_px)
    columns = range(0, image.shape[-1], side_px)
    return [image[:, y : y + side_px, x : x + side_px] for y in rows for x in columns]
