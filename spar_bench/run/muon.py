"""Muon: each step of a matrix is orthogonal, so that all its directions learn at one speed.

Own code instead of `torch.optim.Muon`: that one multiplies in bfloat16 everywhere, which takes 20
times as long on a processor without it, and PyTorch has it only since 2.9. Source: K. Jordan and
others, https://kellerjordan.github.io/posts/muon/; `match_rms_adamw`: J. Liu and others, Muon is
Scalable for LLM Training, 2025, section 2.2.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from spar_bench.components.flops import MUON_ITERATIONS

Scale = Literal["original", "match_rms_adamw"]
"""How far a step goes, as a factor on the learning rate and an orthogonal matrix.

`original`: the root of rows / columns, at least 1. `match_rms_adamw`: 0.2 x the root of the longer
side; entries change by 0.2 in root mean square, about as AdamW's, and at AdamW's learning rates.
"""

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the iteration, tuned to rise fast near zero


class Muon(torch.optim.Optimizer):
    """Momentum on matrices, each step replaced by the nearest semi-orthogonal matrix."""

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        scale: Scale = "match_rms_adamw",
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "scale": scale}
        super().__init__(list(matrices), defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: nothing evaluates a loss twice
        """Take one step along the gradients."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
                step = orthogonalise(matrix.grad.lerp(state["momentum"], group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.sub_(step, alpha=group["lr"] * _factor(matrix.shape, group["scale"]))


def _factor(shape: torch.Size, scale: Scale) -> float:
    rows, columns = shape
    if scale == "original":
        return float(max(1, rows / columns) ** 0.5)
    return float(0.2 * max(rows, columns) ** 0.5)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return `matrix` with all singular values brought near 1, by Newton-Schulz iteration.

    In bfloat16 on a GPU that multiplies it, else in float32.
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = (matrix.T if is_tall else matrix).float()
    x = x / (x.norm() + 1e-7)
    if x.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False):
        x = x.bfloat16()
    for _ in range(MUON_ITERATIONS):
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)
