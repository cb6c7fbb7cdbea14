"""The graph of pixels: each one's neighbourhood, weighed by nearness of colour.

Not a matrix, but one map of weights for each direction to a neighbour: for 13 x 13 pixels, 84 maps,
each of which serves both ends of its edges. They take 0.7 GB for 2048x1024 px.

Shape legend: Q queries, H x W pixels, n = H * W.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spar_bench.refiners._patch_graph import inverse_root
from spar_bench.refiners._propagation import Graph

_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)
_LAB_RANGE = (100.0, 128.0, 128.0)


class Edges(NamedTuple):
    """The edges in one direction: the two ends as views of a map, and weights of the same size."""

    start: tuple[slice, slice]
    end: tuple[slice, slice]
    weights: Tensor


@dataclass(frozen=True, kw_only=True)
class PixelGraph:
    """Which pixels are neighbours, and how near: those of a square, by colour."""

    neighbourhood_px: int
    tau: float

    def of(self, rgb: Tensor) -> Graph:
        """Return the normalised graph of an image `(3, H, W)`, 0 to 1.

        Neighbours get `exp(-|difference of colours in Lab, each channel of range 1| / tau)`. To
        add both directions would double every weight, which normalisation undoes.
        """
        # In float64, where the weight of black beside white, exp(-100), still has all its digits.
        colours = lab(rgb.double()) / rgb.new_tensor(_LAB_RANGE).double()[:, None, None]
        height, width = image_hw = (rgb.shape[-2], rgb.shape[-1])
        degrees = colours.new_zeros(image_hw)
        for start, end in self._directions(image_hw):
            weights = self._weights(colours, start, end)
            degrees[start] += weights
            degrees[end] += weights
        scale = inverse_root(degrees)
        edges = [
            Edges(s, e, (self._weights(colours, s, e) * scale[s] * scale[e]).float())
            for s, e in self._directions(image_hw)
        ]

        def product(values: Tensor) -> Tensor:
            maps = values.view(-1, height, width)
            result = torch.zeros_like(maps)
            for (rows, columns), (rows_end, columns_end), weights in edges:
                near, far = (..., rows, columns), (..., rows_end, columns_end)
                result[near].addcmul_(maps[far], weights)
                result[far].addcmul_(maps[near], weights)
            return result.view_as(values)

        return product

    def _weights(
        self, colours: Tensor, start: tuple[slice, slice], end: tuple[slice, slice]
    ) -> Tensor:
        # Added one by one: torch's norm over 3 channels takes 20 times as long on a CPU.
        squares = (colours[:, *start] - colours[:, *end]).square()
        return (-(squares[0] + squares[1] + squares[2]).sqrt() / self.tau).exp()

    def _directions(
        self, image_hw: tuple[int, int]
    ) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
        """Yield both ends of each direction to a neighbour below, or to the right in the row."""
        (height, width), reach = image_hw, self.neighbourhood_px // 2
        for down in range(min(reach, height - 1) + 1):
            for right in range(-min(reach, width - 1), min(reach, width - 1) + 1):
                if (down, right) > (0, 0):
                    left = max(-right, 0)
                    yield (
                        (slice(0, height - down), slice(left, width - max(right, 0))),
                        (slice(down, height), slice(left + right, width + min(right, 0))),
                    )


def lab(rgb: Tensor) -> Tensor:
    """Return the CIELAB colours of sRGB `(3, H, W)`, 0 to 1, under daylight (D65)."""
    rgb = rgb.clamp(0, 1)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("xc,chw->xhw", rgb.new_tensor(_TO_XYZ), linear)
    x, y, z = _lightness(xyz / rgb.new_tensor(_WHITE)[:, None, None])
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _lightness(share: Tensor) -> Tensor:
    """Return the cube root of shares of white, with a straight line where they are small."""
    knee = 6 / 29
    return torch.where(share > knee**3, share ** (1 / 3), share / (3 * knee**2) + 4 / 29)
