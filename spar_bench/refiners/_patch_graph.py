"""The graph of patches: each one's nearest by cosine, weighed by similarity and distance.

Dense, since for the patches of one image that is exact, simple, and small enough: n x n in float32
is 268 MB for 2048x1024 px, of which two are held while the graph is made.

Shape legend: C channels, h x w patches, n = h * w.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 1024
"""Patches that are compared with all others at once."""


@dataclass(frozen=True, kw_only=True)
class PatchGraph:
    """Which patches are neighbours, and how near."""

    k: int
    gamma: float
    sigma: float

    def of(self, vectors: Tensor, patch_px: int) -> Tensor:
        """Return the normalised graph `(n, n)` of vectors `(C, h, w)`, patches `patch_px` apart.

        A patch's k nearest, itself among them, get `max(0, cosine)**gamma * exp(-sigma * pixels)`;
        both directions are added, the diagonal is 0, and so may be a degree.
        """
        unit = F.normalize(vectors.float().flatten(1).T, dim=1)
        sides = (torch.arange(n) for n in vectors.shape[-2:])
        places = patch_px * torch.cartesian_prod(*sides).to(unit)
        directed = unit.new_zeros(len(unit), len(unit))
        for start in range(0, len(unit), _ROWS):
            rows = slice(start, start + _ROWS)
            cosines, nearest = (unit[rows] @ unit.T).topk(min(self.k, len(unit)), dim=1)
            distances = (places[rows, None] - places[nearest]).norm(dim=-1)
            weights = cosines.clamp(min=0) ** self.gamma * (-self.sigma * distances).exp()
            directed[rows].scatter_(1, nearest, weights)
        graph = directed + directed.T
        graph.fill_diagonal_(0)
        scale = inverse_root(graph.sum(dim=1))
        return graph.mul_(scale).mul_(scale[:, None])


def inverse_root(degrees: Tensor) -> Tensor:
    """Return what both sides of an edge are multiplied by; a node without edges has degree 1."""
    return torch.where(degrees > 0, degrees, 1).rsqrt()
