"""Muon: steps are nearly orthogonal matrices, sized by the learning rate alone, as torch's are."""

import pytest
import torch
from torch import nn

from spar_bench.run.muon import Muon, Scale, orthogonalise


@pytest.mark.parametrize("shape", [(12, 12), (8, 20), (20, 8)])
def test_singular_values_come_near_one_and_their_directions_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape)

    result = orthogonalise(matrix)

    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.linalg.svdvals(result)
    assert result.shape == matrix.shape
    assert values.min() > 0.4
    assert values.max() < 1.3
    assert (u.T @ result @ v.T).diagonal().min() > 0.4


def test_step_does_not_depend_on_the_gradients_size() -> None:
    gradient = torch.randn(6, 4)
    weights = []
    for size in (1.0, 1024.0):  # a power of two, which bfloat16 does not round
        weight = nn.Parameter(torch.ones(6, 4))
        weight.grad = size * gradient
        Muon([weight], lr=0.1, weight_decay=0.0, scale="original").step()
        weights.append(weight.detach())

    assert torch.allclose(weights[0], weights[1], atol=2e-3)
    assert not torch.allclose(weights[0], torch.ones(6, 4), atol=1e-2)


def test_decay_shrinks_weights_by_its_share_of_the_learning_rate() -> None:
    weight = nn.Parameter(torch.full((3, 5), 2.0))
    weight.grad = torch.zeros(3, 5)

    Muon([weight], lr=0.1, weight_decay=0.5).step()

    assert torch.allclose(weight, torch.full((3, 5), 1.9))


def test_minimum_of_a_quadratic_is_found() -> None:
    goal = torch.randn(5, 3)
    weight = nn.Parameter(torch.zeros(5, 3))
    muon = Muon([weight], lr=0.2, weight_decay=0.0, scale="original")
    for step in range(100):
        weight.grad = (weight - goal).detach()
        muon.param_groups[0]["lr"] = 0.2 * (1 - step / 100)
        muon.step()

    assert (weight - goal).abs().max() < 0.05


def test_matrix_without_a_gradient_stays() -> None:
    weight = nn.Parameter(torch.ones(2, 3))

    Muon([weight], lr=0.1, weight_decay=0.5).step()

    assert torch.equal(weight, torch.ones(2, 3))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has a Muon since 2.9")
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("shape", [(12, 12), (8, 20), (20, 8)])
def test_steps_are_those_of_torch_but_for_its_rounding(
    shape: tuple[int, int], scale: Scale
) -> None:
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimisers = [
        Muon([ours], lr=0.1, weight_decay=0.5, scale=scale),
        torch.optim.Muon([theirs], lr=0.1, weight_decay=0.5, adjust_lr_fn=scale),
    ]
    for _ in range(3):
        gradient = torch.randn(shape)
        for weight, optimiser in zip((ours, theirs), optimisers, strict=True):
            weight.grad = gradient.clone()
            optimiser.step()

    moved = (ours - start).norm()
    assert (ours - theirs).norm() < 0.03 * moved  # torch multiplies in bfloat16


@pytest.mark.parametrize("shape", [(64, 64), (32, 96), (96, 32)])
def test_entries_change_as_much_as_adamws_do(shape: tuple[int, int]) -> None:
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape)

    Muon([weight], lr=1e-3, weight_decay=0.0).step()

    changed = weight.square().mean().sqrt().item()
    assert 0.68 * 0.2e-3 < changed < 1.13 * 0.2e-3  # the singular values that the iteration leaves
