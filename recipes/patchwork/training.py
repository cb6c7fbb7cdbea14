"""A pretraining in progress: model, optimisers and progress, saved exactly."""

import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from torch import nn

from spar_bench.components.weights import CONFIG_FILE
from spar_bench.errors import SparBenchError
from spar_bench.patchwork import weights
from spar_bench.run.muon import Muon
from spar_bench.run.resume import (
    load_state,
    optimiser_tensors,
    restore_optimiser,
    save_state,
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of the shipped weights, apart from the seed and the number of steps."""

    n_scenes: int = 2400
    batch: int = 128
    prompts_a_class: int = 2
    matrix_learning_rate: float = 2e-2
    learning_rate: float = 1e-3
    scale_learning_rate: float = 1e-2
    weight_decay: float = 0.05
    warm_up_steps: int = 100
    decay_share: float = 0.4
    clip_norm: float = 1.0
    value_path_share: float = 0.5
    largest_logit_scale: float = 60.0


class Training:
    """The model, its optimisers, and their progress."""

    def __init__(self, seed: int, steps: int, recipe: Recipe) -> None:
        self.seed, self.steps, self.recipe = seed, steps, recipe
        self.step, self.loss, self.seconds = 0, 0.0, 0.0
        prompts = weights.taught_prompts()
        self.tokens = torch.unique(torch.cat(prompts))
        self.prompts = [torch.searchsorted(self.tokens, each) for each in prompts]
        torch.manual_seed(seed)
        self.model = _new_model(len(self.tokens))
        matrices = {
            name: weight
            for name, weight in self.model.named_parameters()
            if weight.ndim == 2 and "resblocks" in name
        }
        self.muon = Muon(
            matrices.values(),
            lr=recipe.matrix_learning_rate,
            weight_decay=recipe.weight_decay,
            scale="original",
        )
        others = [(n, w) for n, w in self.model.named_parameters() if n not in matrices]
        scales = [w for n, w in others if n.startswith("logit_")]
        decayed = [w for n, w in others if w.ndim >= 2]
        rest = [w for n, w in others if w.ndim == 1]
        self.adam = torch.optim.AdamW(
            [
                {"params": scales, "peak": recipe.scale_learning_rate, "weight_decay": 0.0},
                {"params": decayed, "peak": recipe.learning_rate},
                {"params": rest, "peak": recipe.learning_rate, "weight_decay": 0.0},
            ],
            weight_decay=recipe.weight_decay,
            betas=(0.9, 0.98),
        )

    def update(self) -> None:
        """Take one step along the gradients."""
        share = self.learning_rate_share()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        for group in self.adam.param_groups:
            group["lr"] = share * group["peak"]
        self.adam.step()
        for group in self.muon.param_groups:
            group["lr"] = share * self.recipe.matrix_learning_rate
        self.muon.step()
        self.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(self.recipe.largest_logit_scale))
        self.step += 1

    def save(self, path: Path) -> None:
        """Write everything that later steps depend on."""
        tensors = {f"model/{n}": w for n, w in self.model.state_dict().items()}
        tensors |= optimiser_tensors(self.muon, "muon") | optimiser_tensors(self.adam, "adam")
        state = {
            "seed": self.seed,
            "recipe": asdict(self.recipe),
            "level_until": self.level_until,
            "step": self.step,
            "loss": self.loss,
            "seconds": self.seconds,
        }
        save_state(path, tensors, state)

    def resume(self, path: Path) -> None:
        """Resume from what `save` wrote, if it did.

        Raises:
            SparBenchError: it is from a pretraining with other settings.
        """
        saved = load_state(path)
        if saved is None:
            return
        tensors, state = saved
        self.step, self.loss, self.seconds = state["step"], state["loss"], state["seconds"]
        is_ours = state["seed"] == self.seed and state["recipe"] == asdict(self.recipe)
        same_rates = state["level_until"] == self.level_until or self.step <= min(
            state["level_until"], self.level_until
        )
        if not (is_ours and same_rates):
            raise SparBenchError(
                f"{path}: must have the same seed, recipe and learning rates, but has seed "
                f"{state['seed']} and a constant rate until step {state['level_until']:.0f}; "
                "name another folder, or delete it"
            )
        model = {n.removeprefix("model/"): w for n, w in tensors.items() if n.startswith("model/")}
        self.model.load_state_dict(model)
        restore_optimiser(self.muon, tensors, "muon")
        restore_optimiser(self.adam, tensors, "adam")

    @property
    def level_until(self) -> float:
        """The step at which the learning rate begins to fall."""
        return (1 - self.recipe.decay_share) * self.steps

    def learning_rate_share(self) -> float:
        """Return the learning rate as a share of its peak: up, constant, down to zero."""
        recipe = self.recipe
        return learning_rate_share(self.step, self.steps, recipe.warm_up_steps, recipe.decay_share)


def learning_rate_share(step: int, steps: int, warm_up_steps: int, decay_share: float) -> float:
    """Return a learning rate as a share of its peak: up, constant, linear to zero at the end."""
    falling = (steps - step) / (steps - (1 - decay_share) * steps)
    return min(1.0, (step + 1) / warm_up_steps, falling)


def _new_model(n_tokens: int) -> CLIP:
    """Build the model with a vocabulary of only the trained tokens."""
    config = open_clip_config()["model_cfg"]
    return CLIP(**{**config, "text_cfg": {**config["text_cfg"], "vocab_size": n_tokens}})


@cache
def open_clip_config() -> dict[str, Any]:
    """Return the config of the model in the package."""
    config: dict[str, Any] = json.loads((weights.MODEL / CONFIG_FILE).read_text(encoding="utf-8"))
    return config
