"""What training is made of: schedules against torch's, orders, and what resume state holds."""

from pathlib import Path

import pytest
import torch
from torch import nn

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.run.training import Training, learning_rate_factor, order
from spar_bench.spec.schema import BackboneSpec, StudentSpec


@pytest.mark.parametrize("n_steps", [1, 2, 3, 7, 50, 333])
def test_one_cycle_is_torchs_own(n_steps: int) -> None:
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1e-3, total_steps=n_steps, cycle_momentum=False
    )
    expected = []
    for step in range(n_steps):
        expected.append(schedule.get_last_lr()[0])
        optimiser.step()
        if step < n_steps - 1:
            schedule.step()

    found = [1e-3 * learning_rate_factor("one_cycle", step, n_steps) for step in range(n_steps)]

    assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("n_steps", [1, 7, 50])
def test_cosine_is_torchs_own(n_steps: int) -> None:
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=n_steps)
    expected = []
    for _ in range(n_steps):
        expected.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()

    found = [1e-3 * learning_rate_factor("cosine", step, n_steps) for step in range(n_steps)]

    assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_constant_schedule_stays() -> None:
    assert {learning_rate_factor("constant", step, 9) for step in range(9)} == {1.0}


def test_order_visits_every_image_once_and_depends_on_seed_and_epoch() -> None:
    orders = [order(20, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]

    assert all(sorted(one) == list(range(20)) for one in orders)
    assert len({tuple(one) for one in orders}) == 4
    assert order(20, 1, 1) == orders[3]


def test_scale_of_half_precision_gradients_is_part_of_resume_state(
    clip: Path, tmp_path: Path
) -> None:
    spec = StudentSpec(precision="float16", trainable="all")
    runs = [
        Training(OpenClip(BackboneSpec(name="openclip", path=str(clip))), spec, 0, 3)
        for _ in range(2)
    ]
    state = {**runs[0].scaler.state_dict(), "scale": 128.0, "_growth_tracker": 7}
    runs[0].scaler.load_state_dict(state)

    runs[0].save(tmp_path / "resume.safetensors")
    runs[1].resume(tmp_path / "resume.safetensors")

    assert runs[1].scaler.state_dict() == state
