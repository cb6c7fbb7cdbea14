"""AnyUp's network: each pixel of an image attends to the patches around it, and averages them.

The modules have the names of the published weights, so that these load as they are. Written from
the description in Wimmer et al., "AnyUp: Universal Feature Upsampling" (arXiv 2510.12764, ICLR
2026), and of its published settings; the results are those of the full computation, but nothing is
held for all pairs of pixels and patches: the largest tensors are three maps of the image.

Shape legend: D width, H x W pixels, N = H * W, h x w patches, H' x W' cells of the output, C
channels of features, V channels of values.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spar_bench.refiners._anyup_geometry import (
    HEADS,
    TAPS_PX,
    TILE_PATCHES,
    WIDTH,
    Tile,
    tiles,
    windows,
)

CHUNK_PX = 2**17
"""Pixels that are computed at once: 64 MiB a map of all channels."""

_GROUPS = 8


class Network(nn.Module):
    """AnyUp; how many pixels are computed at once, and the side of a tile, change no result.

    Its width is the published 128, or another multiple of the groups and of the heads.
    """

    def __init__(
        self,
        width: int = WIDTH,
        *,
        chunk_px: int = CHUNK_PX,
        tile_patches: int = TILE_PATCHES,
    ) -> None:
        super().__init__()
        self.image_encoder = Encoder(3, width, chunk_px)
        self.key_encoder, self.query_encoder = (Encoder(width, width, chunk_px) for _ in range(2))
        self.key_features_encoder = nn.Sequential(
            Summary(width, chunk_px), Residual(width), Residual(width)
        )
        self.aggregation = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1, padding_mode="reflect", bias=False),
            Residual(width),
            Residual(width),
        )
        self.cross_decode = CrossDecode(width, tile_patches)
        self.rope = Rotation(width, chunk_px)
        self.requires_grad_(False)

    def forward(
        self, values: Tensor, features: Tensor, image: Tensor, cells_hw: tuple[int, int]
    ) -> Tensor:
        """Upsample values `(V, h, w)` to `(V, H', W')`, in float32.

        Each of the output is a convex combination of values around it, whose weights depend on the
        features `(C, h, w)` and on the image `(3, H, W)`, normalised as ImageNet's.
        """
        grid_hw = features.shape[-2], features.shape[-1]
        queries, keys = self._encoded(image, grid_hw, cells_hw)
        keys = self.aggregation(torch.cat([keys, self.key_features_encoder(features)]))
        upsampled: Tensor = self.cross_decode(queries, keys, values)
        return upsampled

    def _encoded(
        self, image: Tensor, grid_hw: tuple[int, int], cells_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return what cells `(D, H', W')` and patches `(D, h, w)` are, as far as the image goes."""
        encoded = self.image_encoder(image)
        self.rope(encoded)
        keys = _pooled(self.key_encoder(encoded), grid_hw)
        return _pooled(self.query_encoder(encoded), cells_hw), keys


class Encoder(nn.Sequential):
    """A product with weights and two residual blocks, for each pixel alone but for the norms."""

    def __init__(self, channels: int, width: int, chunk_px: int) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 1, bias=False),
            Residual(width, chunk_px),
            Residual(width, chunk_px),
        )
        self._chunk_px = chunk_px

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels `(channels, H, W)` to `(D, H, W)`."""
        first: Any = self[0]
        weight: Tensor = first.weight.flatten(1)
        encoded = pixels.new_empty(len(weight), *pixels.shape[1:])
        for where in _chunks(pixels[0].numel(), self._chunk_px):
            encoded.flatten(1)[:, where] = weight @ pixels.flatten(1)[:, where]
        refined: Tensor = self[2](self[1](encoded))
        return refined


class Residual(nn.Module):
    """Twice a group norm, SiLU and a product with weights, added to what goes in."""

    def __init__(self, width: int, chunk_px: int = CHUNK_PX) -> None:
        super().__init__()
        layers = (nn.GroupNorm(_GROUPS, width), nn.SiLU(), nn.Conv2d(width, width, 1, bias=False))
        self.block = nn.Sequential(*layers, *deepcopy(layers))
        self._chunk_px = chunk_px

    def forward(self, x: Tensor) -> Tensor:
        """Map `(D, H, W)` to the same size, and overwrite it to save memory."""
        added = x.flatten(1)
        hidden = torch.empty_like(added)
        for where, mapped in self._mapped(self.block[:3], added):
            hidden[:, where] = mapped
        for where, mapped in self._mapped(self.block[3:], hidden):
            added[:, where] += mapped
        return added.view_as(x)

    def _mapped(self, layers: Any, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield chunk by chunk what a norm, SiLU and weights make of `(D, N)`."""
        norm, _, product = layers
        mean, variance = _moments(x.reshape(_GROUPS, -1))
        deviation = (variance + norm.eps).sqrt()
        scale = norm.weight / deviation.repeat_interleave(len(x) // _GROUPS)
        shift = norm.bias - mean.repeat_interleave(len(x) // _GROUPS) * scale
        for where in _chunks(x.shape[1], self._chunk_px):
            normed = torch.addcmul(shift[:, None], scale[:, None], x[:, where])
            yield where, product.weight.flatten(1) @ F.silu(normed, inplace=True)


class Summary(nn.Module):
    """A description of features of any number of channels: which kernels each channel resembles."""

    def __init__(self, width: int, chunk_px: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(width, 1, TAPS_PX, TAPS_PX) / TAPS_PX)
        self._chunk_px = chunk_px

    def forward(self, features: Tensor) -> Tensor:
        """Summarise features `(C, h, w)` to `(D, h, w)`.

        Each channel is compared with all kernels, at borders with their inner taps alone; the
        kernels' softmax is averaged over channels.
        """
        channels, *grid_hw = features.shape
        ones = features.new_ones(1, 1, *grid_hw)
        n_inside = F.conv2d(ones, torch.ones_like(self.basis[:1]), padding=TAPS_PX // 2)
        summary = features.new_zeros(len(self.basis), *grid_hw)
        normalised = F.normalize(features, dim=0)[:, None]
        for where in _chunks(channels, max(1, self._chunk_px // ones.numel())):
            compared = F.conv2d(normalised[where], self.basis, padding=TAPS_PX // 2)
            summary += compared.div_(n_inside).softmax(dim=1).sum(dim=0)
        return summary.div_(channels)


class Rotation(nn.Module):
    """Rotary positions: the first half of channels is paired with the second."""

    def __init__(self, width: int, chunk_px: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(torch.randn(2, width))
        self._chunk_px = chunk_px

    def forward(self, x: Tensor) -> None:
        """Rotate `(D, H, W)` in place, by angles that grow from the first row and column."""
        height, width = x.shape[-2:]
        rows, columns = (torch.linspace(0, 1, n, device=x.device) for n in (height, width))
        by_row, by_column = self.freqs[:, :, None, None]
        for where in _chunks(height, max(1, self._chunk_px // width)):
            part, angles = x[:, where], by_row * rows[where, None] + by_column * columns
            first, second = part.chunk(2)
            turned = torch.cat([-second, first]).mul_(angles.sin())
            part.mul_(angles.cos_()).add_(turned)


class CrossDecode(nn.Module):
    """Attention of cells to the patches in their windows, each head's weights averaged."""

    def __init__(self, width: int, tile_patches: int) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(width, width, 3, bias=False)
        self.cross_attn = CrossAttention(width)
        self._tile_patches = tile_patches

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Average values `(V, h, w)` for cells `(D, H', W')` by keys `(D, h, w)`: `(V, H', W')`."""
        (height, width), grid_hw = queries.shape[-2:], keys.shape[-2:]
        rows, columns = (
            tiles(n_cells, n_patches, self._tile_patches)
            for n_cells, n_patches in zip((height, width), grid_hw, strict=True)
        )
        hidden_rows = _hidden(height, grid_hw[0], values.device)
        hidden_columns = _hidden(width, grid_hw[1], values.device)
        keys = self.cross_attn.project_keys(keys)
        upsampled = values.new_empty(len(values), height, width)
        for row in rows:
            strip = self.cross_attn.project_queries(self._convolved(queries, row.cells))
            for column in columns:
                hidden = (
                    hidden_rows[row.cells, None, row.patches, None]
                    | hidden_columns[None, column.cells, None, column.patches]
                )
                weights = _weights(strip[:, :, column.cells], _seen(keys, row, column), hidden)
                tile = upsampled[:, row.cells, column.cells]
                tile.copy_((_seen(values, row, column) @ weights.mT).view_as(tile))
        return upsampled

    def _convolved(self, queries: Tensor, rows: slice) -> Tensor:
        """Return rows of the queries' convolution, zeros beyond the border, `(D, rows, W')`."""
        first, last = max(rows.start - 1, 0), min(rows.stop + 1, queries.shape[1])
        above, below = first - rows.start + 1, rows.stop + 1 - last
        padded = F.pad(queries[:, first:last], (1, 1, above, below))
        convolved: Tensor = self.conv2d(padded)
        return convolved


class CrossAttention(nn.Module):
    """The norms and projections of attention; the published values' and output's go unused."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_q, self.norm_k = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = nn.MultiheadAttention(width, HEADS)

    def project_queries(self, queries: Tensor) -> Tensor:
        """Map `(D, rows, columns)` to `(heads, rows, columns, D / heads)`, scaled."""
        scaled: Tensor = self._projected(self.norm_q, queries, 0) / (len(queries) // HEADS) ** 0.5
        return scaled

    def project_keys(self, keys: Tensor) -> Tensor:
        """Map `(D, rows, columns)` to `(heads, rows, columns, D / heads)`."""
        return self._projected(self.norm_k, keys, 1)

    def _projected(self, norm: nn.RMSNorm, x: Tensor, part: int) -> Tensor:
        weight = self.attention.in_proj_weight.chunk(3)[part]
        bias = self.attention.in_proj_bias.chunk(3)[part]
        projected = F.linear(norm(x.permute(1, 2, 0)), weight, bias)
        return projected.view(*projected.shape[:2], HEADS, -1).permute(2, 0, 1, 3)


def _chunks(length: int, at_once: int) -> Iterator[slice]:
    """Yield slices that together cover a length."""
    yield from (slice(start, start + at_once) for start in range(0, length, at_once))


def _moments(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each row.

    On a CPU in two passes, a row at a time: `torch.var_mean` takes 14 times as long there.
    """
    if groups.is_cuda:
        variance, mean = torch.var_mean(groups, dim=1, correction=0)
        return mean, variance
    mean = groups.mean(dim=1)
    variances = [(row - its).square_().mean() for row, its in zip(groups, mean, strict=True)]
    return mean, torch.stack(variances)


def _pooled(x: Tensor, to_hw: tuple[int, int]) -> Tensor:
    """Average `(D, H, W)` over the cells of a grid."""
    return x if x.shape[1:] == to_hw else F.adaptive_avg_pool2d(x, to_hw)


def _hidden(n_cells: int, n_patches: int, device: torch.device) -> Tensor:
    """Return which patches each cell along a side does not see, `(cells, patches)`."""
    hidden = torch.ones(n_cells, n_patches, dtype=torch.bool)
    for cell, seen in enumerate(windows(n_cells, n_patches)):
        hidden[cell, seen.start : seen.stop] = False
    return hidden.to(device)


def _seen(patches: Tensor, row: Tile, column: Tile) -> Tensor:
    """Return what a tile sees of `(any, h, w, ...)`, its rows one after the other."""
    return patches[:, row.patches, column.patches].flatten(1, 2)


def _weights(queries: Tensor, keys: Tensor, hidden: Tensor) -> Tensor:
    """Return the attention of cells to patches `(cells, patches)`, averaged over heads.

    Queries are `(heads, rows, columns, D / heads)`, keys `(heads, patches, D / heads)`.
    """
    products = queries.flatten(1, 2) @ keys.mT
    products.masked_fill_(hidden.flatten(2).flatten(0, 1), -torch.inf)
    return products.softmax(dim=2).mean(dim=0)
