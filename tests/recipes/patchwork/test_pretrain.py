"""The recipe: resumed exactly, refused if it differs, and reported correctly."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from recipes.patchwork import pretrain as module
from recipes.patchwork.crops import Pool
from recipes.patchwork.pretrain import CHECKPOINT_FILE, PretrainReport, pretrain
from recipes.patchwork.training import Recipe, Training
from spar_bench.errors import Diverged, SparBenchError
from spar_bench.patchwork import weights

RECIPE = Recipe(n_scenes=2, batch=4, warm_up_steps=2)


@pytest.fixture(autouse=True)
def _no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scenes drawn once; the validation scenes are read elsewhere; every step is kept."""
    pool = Pool.draw(2)
    monkeypatch.setattr(Pool, "draw", lambda n_scenes: pool)
    monkeypatch.setattr(module, "validation_miou", lambda *_, **__: [0.25, 0.5])
    monkeypatch.setattr(module, "CHECKPOINT_S", 0.0)


def run(output: Path, *, steps: int = 5, seed: int = 3, recipe: Recipe = RECIPE) -> PretrainReport:
    return pretrain(output, steps=steps, seed=seed, recipe=recipe, on_progress=lambda line: None)


def run_until(output: Path, step: int, monkeypatch: pytest.MonkeyPatch, steps: int = 5) -> None:
    """Begin a pretraining that is interrupted when it would take a step."""
    update = Training.update

    def interrupted(self: Training) -> None:
        if self.step == step:
            raise KeyboardInterrupt
        update(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(output, steps=steps)


@pytest.mark.parametrize("step", [1, 3])
def test_resumed_pretraining_equals_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    run_until(tmp_path / "cut", step, monkeypatch)
    resumed = run(tmp_path / "cut")
    undisturbed = run(tmp_path / "whole")

    expected = load_file(tmp_path / "whole" / weights.WEIGHTS_FILE)
    found = load_file(tmp_path / "cut" / weights.WEIGHTS_FILE)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.loss == undisturbed.loss


def test_steps_may_change_while_the_learning_rate_is_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_until(tmp_path / "cut", 3, monkeypatch, steps=10)
    run(tmp_path / "cut", steps=5)
    run(tmp_path / "whole", steps=5)

    expected = load_file(tmp_path / "whole" / weights.WEIGHTS_FILE)
    found = load_file(tmp_path / "cut" / weights.WEIGHTS_FILE)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    "other",
    [{"seed": 4}, {"steps": 4}, {"recipe": Recipe(n_scenes=2, batch=5, warm_up_steps=2)}],
    ids=["seed", "steps", "recipe"],
)
def test_checkpoint_of_another_pretraining_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    run_until(tmp_path, 4, monkeypatch)

    with pytest.raises(SparBenchError, match=f"{CHECKPOINT_FILE}: must have the same seed"):
        run(tmp_path, **other)


def test_seeds_give_other_weights(tmp_path: Path) -> None:
    run(tmp_path / "3", steps=1)
    run(tmp_path / "4", steps=1, seed=4)

    states = [weights.load_state_dict(tmp_path / seed) for seed in ("3", "4")]
    assert not torch.equal(states[0]["visual.proj"], states[1]["visual.proj"])


def test_report_says_what_it_took_and_what_came_of_it(tmp_path: Path) -> None:
    report = run(tmp_path)

    written = json.loads((tmp_path / "pretraining.json").read_text())
    assert written["seed"] == report.seed == 3
    assert written["steps"] == 5
    assert (written["single_pass_miou"], written["teacher_miou"]) == (0.25, 0.5)
    assert (written["window_px"], written["stride_px"], written["n_images"]) == (64, 12, 48)
    assert written["recipe"]["batch"] == 4
    assert written["loss"] > 0
    assert str(report).startswith("seed 3, 5 steps in 0 min")
    assert "mIoU 25.0 % in a single pass, 50.0 % by windows of 64 px at stride 12" in str(report)


def test_loss_that_is_not_finite_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "tag_loss", lambda *_: torch.tensor(torch.nan))

    with pytest.raises(Diverged, match="finite"):
        run(tmp_path)


def test_learning_rate_rises_stays_and_falls_to_zero() -> None:
    training = Training(0, 100, Recipe(warm_up_steps=10, decay_share=0.4))

    shares = []
    for training.step in (0, 4, 9, 30, 60, 80, 99):
        shares.append(training.learning_rate_share())

    assert shares == pytest.approx([0.1, 0.5, 1, 1, 1, 0.5, 0.025])
