"""AnyUp's network with gradients, for a part of its output: its own forward works in place.

Shape legend: D width, H x W pixels, h x w patches, N cells or patches of a part, V channels of
values, C of features.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spar_bench.refiners._anyup_geometry import TAPS_PX, Tile, windows
from spar_bench.refiners._anyup_network import Network


class Part(NamedTuple):
    """A rectangle of the cells that cover an image, `cells_hw` in all."""

    cells_hw: tuple[int, int]
    rows: slice
    columns: slice


def upsample(
    network: Network, values: Tensor, features: Tensor, image: Tensor, part: Part
) -> Tensor:
    """Upsample values `(V, h, w)` to a part of the cells, `(V, rows, columns)`.

    Equal to that part of what the network gives for features `(C, h, w)` and an image `(3, H, W)`.
    """
    grid_hw = features.shape[-2], features.shape[-1]
    encoded = _rotated(network.rope.freqs, _encoded(network.image_encoder, image))
    keys = F.adaptive_avg_pool2d(_encoded(network.key_encoder, encoded), grid_hw)
    queries = F.adaptive_avg_pool2d(_encoded(network.query_encoder, encoded), part.cells_hw)

    summary, *blocks = network.key_features_encoder
    summarised = _refined(_summarised(summary, features), blocks)
    first, *blocks = network.aggregation
    keys = _refined(first(torch.cat([keys, summarised])), blocks)

    rows, columns = (
        _tile(cells, n_cells, n_patches)
        for cells, n_cells, n_patches in zip(part[1:], part.cells_hw, grid_hw, strict=True)
    )
    weights = _weights(network, _framed(queries, rows, columns), keys, (rows, columns), part)
    seen = values[:, rows.patches, columns.patches].flatten(1)
    return (seen @ weights.mT).view(len(values), *_lengths(rows.cells, columns.cells))


def _encoded(encoder: nn.Sequential, pixels: Tensor) -> Tensor:
    first, *blocks = encoder
    return _refined(first(pixels[None])[0], blocks)


def _refined(x: Tensor, blocks: list[Any]) -> Tensor:
    """Add what each residual block makes of `(D, ...)`."""
    for residual in blocks:
        added = x.flatten(1)
        for norm, _, product in (residual.block[:3], residual.block[3:]):
            normed = F.group_norm(added[None], norm.num_groups, norm.weight, norm.bias, norm.eps)
            added = product.weight.flatten(1) @ F.silu(normed[0])
        x = x + added.view_as(x)
    return x


def _rotated(freqs: Tensor, x: Tensor) -> Tensor:
    rows, columns = (torch.linspace(0, 1, n)[:, None] for n in x.shape[-2:])
    by_row, by_column = freqs[:, :, None, None]
    angles = by_row * rows + by_column * columns.mT
    first, second = x.chunk(2)
    rotated: Tensor = x * angles.cos() + torch.cat([-second, first]) * angles.sin()
    return rotated


def _summarised(summary: Any, features: Tensor) -> Tensor:
    """Return which kernels the channels of features `(C, h, w)` resemble, `(D, h, w)`."""
    basis, ones = summary.basis, torch.ones_like(features[:1, None])
    compared = F.conv2d(F.normalize(features, dim=0)[:, None], basis, padding=TAPS_PX // 2)
    n_inside = F.conv2d(ones, torch.ones_like(basis[:1]), padding=TAPS_PX // 2)
    return (compared / n_inside).softmax(dim=1).mean(dim=0)


def _framed(queries: Tensor, rows: Tile, columns: Tile) -> Tensor:
    """Return the queries of a part and of one cell around it, zeros beyond the border."""
    (top, bottom), (left, right) = (
        (tile.cells.start, tile.cells.stop + 2) for tile in (rows, columns)
    )
    return F.pad(queries, (1, 1, 1, 1))[:, top:bottom, left:right]


def _weights(
    network: Network, framed: Tensor, keys: Tensor, tiles: tuple[Tile, Tile], part: Part
) -> Tensor:
    """Return the attention of cells to patches `(N, N)`, averaged over heads."""
    attention, (rows, columns) = network.cross_decode.cross_attn, tiles
    queries = attention.project_queries(network.cross_decode.conv2d(framed))
    patches = attention.project_keys(keys)[:, rows.patches, columns.patches]
    by_row, by_column = (
        _hidden(tile, n_cells, n_patches)
        for tile, n_cells, n_patches in zip(tiles, part.cells_hw, keys.shape[-2:], strict=True)
    )
    hidden = by_row[:, None, :, None] | by_column[None, :, None, :]
    products = queries.flatten(1, 2) @ patches.flatten(1, 2).mT
    masked = products.masked_fill(hidden.flatten(2).flatten(0, 1), -torch.inf)
    return masked.softmax(dim=2).mean(dim=0)


def _tile(cells: slice, n_cells: int, n_patches: int) -> Tile:
    """Return a run of cells with all patches that any of them sees."""
    seen = windows(n_cells, n_patches)[cells]
    return Tile(cells, slice(seen[0].start, seen[-1].stop))


def _hidden(tile: Tile, n_cells: int, n_patches: int) -> Tensor:
    """Return which of a tile's patches each of its cells does not see, along one side."""
    patches = range(n_patches)[tile.patches]
    seen = windows(n_cells, n_patches)[tile.cells]
    return torch.tensor([[patch not in one for patch in patches] for one in seen])


def _lengths(rows: slice, columns: slice) -> tuple[int, int]:
    return rows.stop - rows.start, columns.stop - columns.start
