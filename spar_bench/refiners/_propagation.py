"""Propagate scores over a graph: some steps of conjugate gradients, all queries side by side.

Shape legend: Q queries, n nodes of the graph.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Graph = Callable[[Tensor], Tensor]
"""The product of a symmetric graph, its degrees normalised away, with values `(Q, n)`."""


@dataclass(frozen=True, kw_only=True)
class Propagation:
    """How far scores are propagated, and whether they then get the magnitude that they had."""

    alpha: float
    max_iterations: int
    tolerance: float
    rescale: bool

    def __call__(self, graph: Graph, scores: Tensor, *, at_once: int | None = None) -> Tensor:
        """Return the scores `(Q, n)` that solve `z - alpha * graph(z) = scores`, nearly.

        To rescale is to divide by what becomes of scores of 1: the exact solution is then a
        weighted mean of the nodes' scores. No more than `at_once` queries are solved for together.
        """
        if self.rescale:
            scores = torch.cat([scores, torch.ones_like(scores[:1])])
        parts = torch.split(scores, at_once or len(scores))
        solved = torch.cat([self._solved(graph, part) for part in parts])
        return solved[:-1] / solved[-1:] if self.rescale else solved

    def _solved(self, graph: Graph, scores: Tensor) -> Tensor:
        """Take at most `max_iterations` steps from 0, each query by itself.

        A query whose residual is within the tolerance, relative to its scores, stays as it is.
        """
        solution, residual, direction = torch.zeros_like(scores), scores.clone(), scores.clone()
        square = residual.square().sum(dim=1)
        enough = self.tolerance**2 * square
        is_left = square > enough
        for _ in range(self.max_iterations):
            if not is_left.any():
                break
            product = direction - self.alpha * graph(direction)
            curvature = (direction * product).sum(dim=1)
            step = torch.where(is_left, square / curvature, 0)[:, None]
            solution += step * direction
            residual -= step * product
            before, square = square, residual.square().sum(dim=1)
            turn = torch.where(is_left, square / before, 0)[:, None]
            direction = residual + turn * direction
            is_left &= square > enough
        return solution
