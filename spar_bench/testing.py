"""Contracts that a plug-in's test class inherits, a third party's too; needs pytest.

from spar_bench.testing import LossContract
from my_package import huber

class TestHuber(LossContract):
    @pytest.fixture
    def loss(self):
        return huber.loss
"""

import pytest
import torch
from torch import Tensor

from spar_bench.losses.base import Loss


def features(seed: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw features `(2, 5, 3, 4)` from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, 3, 4, generator=generator).to(dtype)


class LossContract:
    """What every loss must do; inherit, and supply a `loss` fixture."""

    def test_loss_is_a_finite_scalar_above_zero(self, loss: Loss) -> None:
        value = loss(features(0), features(1))

        assert value.shape == ()
        assert torch.isfinite(value)
        assert value > 0

    def test_loss_of_equal_features_is_zero(self, loss: Loss) -> None:
        value = loss(features(0), features(0))

        assert 0 <= value.item() < 1e-6

    def test_gradient_flows_to_the_student_alone(self, loss: Loss) -> None:
        student, teacher = features(0).requires_grad_(), features(1).requires_grad_()

        loss(student, teacher).backward()  # type: ignore[no-untyped-call]

        assert student.grad is not None
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None

    def test_a_step_against_the_gradient_lowers_the_loss(self, loss: Loss) -> None:
        student, teacher = features(0).requires_grad_(), features(1)
        before = loss(student, teacher)
        (gradient,) = torch.autograd.grad(before, student)

        after = loss(student - 1e-2 * gradient / gradient.norm(), teacher)

        assert after < before

    @pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 5, 3, 4), (2, 1, 3, 4), (2, 5, 1, 1)])
    def test_unequal_shapes_are_an_error(self, loss: Loss, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="must both be"):
            loss(features(0), torch.zeros(shape))

    def test_half_precision_features_give_the_same_loss(self, loss: Loss) -> None:
        exact = loss(features(0), features(1))

        rounded = loss(features(0, dtype=torch.bfloat16), features(1, dtype=torch.float16))

        assert rounded.item() == pytest.approx(exact.item(), rel=0.02)
