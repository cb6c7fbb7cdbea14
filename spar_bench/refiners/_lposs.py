"""LPOSS: class scores propagated between similar patches, and then between similar pixels.

Shape legend: Q queries, C channels, h x w patches of the graph, H x W pixels that the backbone saw.

Source: Stojnic et al., LPOSS, CVPR 2025, arXiv 2503.19777; vladan-stojnic/LPOSS @e489a74 (MIT).
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench.refiners._lposs_cost import require_settings
from spar_bench.refiners._patch_graph import PatchGraph
from spar_bench.refiners._pixel_graph import PixelGraph
from spar_bench.refiners._propagation import Propagation
from spar_bench.refiners.base import Guidance, Hw

_QUERIES = 8
"""Queries that are propagated between pixels at once: memory for 5 maps of each."""


@dataclass(frozen=True, kw_only=True)
class Lposs:
    """Both graphs, and how scores are propagated over them; without `pixels`, the first alone."""

    patches: PatchGraph
    pixels: PixelGraph | None
    propagation: Propagation

    @classmethod
    def of(
        cls,
        *,
        pixels: bool,
        k: int,
        gamma: float,
        sigma: float,
        neighbourhood_px: int,
        tau: float,
        **propagation: Any,
    ) -> Self:
        """Return LPOSS with its settings.

        Raises:
            SparBenchError: one is out of range.
        """
        require_settings(
            k=k,
            gamma=gamma,
            sigma=sigma,
            neighbourhood_px=neighbourhood_px,
            tau=tau,
            **propagation,
        )
        return cls(
            patches=PatchGraph(k=k, gamma=gamma, sigma=sigma),
            pixels=PixelGraph(neighbourhood_px=neighbourhood_px, tau=tau) if pixels else None,
            propagation=Propagation(**propagation),
        )

    def refined(
        self, scores: Tensor, vectors: Tensor, guidance: Guidance, *, patch_px: int
    ) -> Tensor:
        """Return refined scores, `(Q, h, w)` or those of all pixels, `(Q, H, W)`.

        Scores are of the grid of the vectors `(C, h, w)`, which decide what is similar.
        """
        image_hw, grid_hw = guidance.pixels.shape[-2:], vectors.shape[-2:]
        graph = self.patches.of(vectors, patch_px)
        # The graph is symmetric, so that rows of queries may be multiplied from the left.
        solved = self.propagation(lambda values: values @ graph, scores.float().flatten(1))
        refined = solved.reshape(-1, *grid_hw)
        if self.pixels is None:
            return refined
        maps = F.interpolate(refined[None], size=image_hw, mode="bilinear")[0]
        colours = self.pixels.of(guidance.normalised((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
        solved = self.propagation(colours, maps.flatten(1), at_once=_QUERIES)
        return solved.reshape(-1, *image_hw)


def on_grid(scores: Tensor, features: Tensor | None, grid_hw: Hw) -> Tensor:
    """Return cosines `(Q, h, w)` on another grid, laid over the same image.

    They are those of features that were normalised, resampled bilinearly, and normalised again, as
    in LPOSS: only the last does not commute with the product with queries. Without features, the
    cosines themselves are resampled; where that makes them fewer, with antialiasing.
    """
    if tuple(scores.shape[-2:]) == grid_hw:
        return scores
    if features is None:
        return F.interpolate(scores[None], size=grid_hw, mode="bilinear", antialias=True)[0]
    unit = F.normalize(features.float(), dim=0)
    both = torch.cat([scores, unit])
    resampled = F.interpolate(both[None], size=grid_hw, mode="bilinear")[0]
    norms: Tensor = resampled[len(scores) :].norm(dim=0)
    return resampled[: len(scores)] / norms.clamp(min=1e-12)
