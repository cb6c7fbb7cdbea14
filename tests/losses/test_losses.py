"""Each built-in loss: the contract, and a value computed by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from spar_bench import registry
from spar_bench.losses.base import Loss
from spar_bench.testing import LossContract, features

# Two channels at three positions (B=1, C=2, h=1, w=3), channel pairs written as columns:
# student (3,4) (1,0) (0,2); teacher (3,4) (0,1) (0,-1).
STUDENT = torch.tensor([[3.0, 1.0, 0.0], [4.0, 0.0, 2.0]]).reshape(1, 2, 1, 3)
TEACHER = torch.tensor([[3.0, 0.0, 0.0], [4.0, 1.0, -1.0]]).reshape(1, 2, 1, 3)

BY_HAND = {
    # Differences: 0 0, 1 -1, 0 3.
    "mse": (0 + 0 + 1 + 1 + 0 + 9) / 6,
    "l1": (0 + 0 + 1 + 1 + 0 + 3) / 6,
    "smooth_l1": (0 + 0 + 0.5 + 0.5 + 0 + 2.5) / 6,
    # Cosines: 1, 0, -1.
    "cosine": (0 + 1 + 2) / 3,
    # Normalised differences: 0 0, 1 -1, 0 2.
    "normalized_mse": (0 + 0 + 1 + 1 + 0 + 4) / 6,
}


@pytest.fixture(params=sorted(BY_HAND))
def name(request: pytest.FixtureRequest) -> str:
    """Each built-in loss in turn."""
    return str(request.param)


class TestBuiltInLosses(LossContract):
    @pytest.fixture
    def loss(self, name: str) -> Any:
        return registry.load("losses", name)

    def test_loss_equals_the_value_computed_by_hand(self, loss: Loss, name: str) -> None:
        assert loss(STUDENT, TEACHER).item() == pytest.approx(BY_HAND[name], rel=1e-6)


def test_every_built_in_loss_has_a_value_computed_by_hand() -> None:
    assert registry.names("losses") == sorted(BY_HAND)


def test_normalized_mse_is_cosine_times_two_over_channels() -> None:
    cosine, normalized = (registry.load("losses", name) for name in ("cosine", "normalized_mse"))

    ratio = normalized(features(0), features(1)) / cosine(features(0), features(1))

    assert ratio.item() == pytest.approx(2 / 5, rel=1e-5)


@pytest.mark.parametrize("factor", [0.1, 7.0])
@pytest.mark.parametrize("name", ["cosine", "normalized_mse"])
def test_losses_of_direction_ignore_the_size_of_a_feature(name: str, factor: float) -> None:
    loss = registry.load("losses", name)

    assert loss(factor * STUDENT, TEACHER).item() == pytest.approx(BY_HAND[name], rel=1e-5)


def test_features_of_all_zeros_give_a_finite_gradient() -> None:
    for name in BY_HAND:
        student = torch.zeros(1, 2, 1, 3, requires_grad=True)
        value: Tensor = registry.load("losses", name)(student, TEACHER)

        (gradient,) = torch.autograd.grad(value, student)

        assert torch.isfinite(gradient).all(), name


@pytest.mark.parametrize(
    ("beta", "by_hand"),
    [
        (0.5, (0 + 0 + 0.75 + 0.75 + 0 + 2.75) / 6),
        (4.0, (0 + 0 + 0.125 + 0.125 + 0 + 1.125) / 6),
    ],
)
def test_smooth_l1_is_squared_below_beta_and_a_line_beyond(beta: float, by_hand: float) -> None:
    loss = registry.configured("losses", "smooth_l1", {"beta": beta})

    assert loss(STUDENT, TEACHER).item() == pytest.approx(by_hand, rel=1e-6)


def test_cosine_of_equals_never_rounds_below_zero() -> None:
    loss = registry.load("losses", "cosine")
    generator = torch.Generator().manual_seed(0)
    single = [torch.randn(1, 64, 1, 1, generator=generator) for _ in range(100)]

    assert all(loss(one, one) >= 0 for one in single)
