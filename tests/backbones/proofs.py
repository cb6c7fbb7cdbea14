"""Compare what a backbone does with what a test spells out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench.backbones.base import Backbone
from spar_bench.run.trainable import set_trainable

CLOSE = 1e-5
"""Largest relative error in float32."""
RATE, DECAY = 1e-3, 0.1


def weights_of(backbone: Backbone) -> dict[str, Tensor]:
    """Return the weights of a backbone's image tower by name, in float64."""
    return {name: value.double() for name, value in backbone.visual.state_dict().items()}


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the relative difference of two tensors of one shape, by their norms."""
    assert found.shape == expected.shape
    return float((found.double() - expected).norm() / expected.norm())


class Step(NamedTuple):
    """A step of a backbone against the one spelled out."""

    n_trained: int
    """Weights that a step could change."""
    least: float
    """The smallest change among them, by its largest element."""
    error: float
    """The largest difference of any element of any weight, trained or not."""


def one_step(
    backbone: Backbone,
    images: Tensor,
    features: Callable[[dict[str, Tensor], Tensor], Tensor],
    blocks: tuple[str, ...],
) -> Step:
    """Train the last two blocks for a step of AdamW in float64, and do the same by hand.

    `features(state, images)` spells out what the backbone returns, from its weights' names alone;
    `blocks` are the beginnings of the names of those two blocks.
    """
    backbone.visual.double()
    before = {name: value.clone() for name, value in backbone.visual.state_dict().items()}
    target = torch.randn(features(before, images.double()).shape).double()
    trained = set_trainable(backbone, "last_2_blocks")
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    F.mse_loss(backbone.features(images.double()), target).backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    found = backbone.visual.state_dict()

    names = [name for name in before if name.startswith(blocks)]
    state = {name: value.clone().requires_grad_(name in names) for name, value in before.items()}
    loss = (features(state, images.double()) - target).square().mean()
    gradients = torch.autograd.grad(loss, [state[name] for name in names])
    expected = dict(before)
    for name, g in zip(names, gradients, strict=True):
        # After one step, the moments corrected for their bias are g and its square.
        expected[name] = before[name] * (1 - RATE * DECAY) - RATE * g / (g.abs() + 1e-8)
    assert len(trained) == len(names)
    return Step(
        n_trained=len(trained),
        least=min(float((found[name] - before[name]).abs().max()) for name in names),
        error=max(float((found[name] - value).abs().max()) for name, value in expected.items()),
    )


def attend_in_every_place(pool: Any, x: Tensor) -> Tensor:
    """Let timm's pooling head attend as it was trained to, `(B, N, D)`: the same in every place."""
    pooled: Tensor = pool(x)
    return pooled[:, None].expand(-1, x.shape[1], -1)
