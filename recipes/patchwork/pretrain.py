"""Pretrain the backbone on pictures and tags: the recipe that made the weights in the package.

    python -m recipes.patchwork.pretrain OUTPUT

Legend: K classes, P prompts of a class.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.patchwork.crops import Pool, draw_batch
from recipes.patchwork.objective import patch_features, tag_loss
from recipes.patchwork.training import Recipe, Training, open_clip_config
from spar_bench.api import evaluate
from spar_bench.backbones.base import Backbone as AnyBackbone
from spar_bench.backbones.patchwork import Backbone
from spar_bench.components.weights import CONFIG_FILE
from spar_bench.datasets.base import DatasetSettings
from spar_bench.datasets.patchwork import Dataset
from spar_bench.errors import Diverged
from spar_bench.files import replace_bytes, replace_text
from spar_bench.patchwork import weights
from spar_bench.run.context import device_name, set_threads
from spar_bench.run.images import normalise
from spar_bench.spec.schema import BackboneSpec, DatasetSpec

STEPS = 5000
"""The number of steps of the weights in the package."""
CHECKPOINT_FILE = "checkpoint.safetensors"
REPORT_FILE = "pretraining.json"
WINDOW_PX, TEACHER_STRIDE_PX = 64, 12
CHECKPOINT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class PretrainReport:
    """What a pretraining took, and how well its weights read the validation scenes.

    `seconds` counts the steps alone. mIoU are fractions, of a single pass and of windows of
    `window_px` every `stride_px`, cosines averaged at pixels.
    """

    seed: int
    steps: int
    seconds: float
    loss: float
    single_pass_miou: float
    teacher_miou: float
    window_px: int
    stride_px: int
    n_images: int
    device: str
    torch: str
    recipe: dict[str, Any]

    def __str__(self) -> str:
        """Summarise it in one line."""
        return (
            f"seed {self.seed}, {self.steps} steps in {self.seconds / 60:.0f} min ({self.device}): "
            f"on {self.n_images} validation scenes mIoU {100 * self.single_pass_miou:.1f} % in a "
            f"single pass, {100 * self.teacher_miou:.1f} % by windows of {self.window_px} px at "
            f"stride {self.stride_px}"
        )


_RECIPE = Recipe()


def pretrain(
    output: Path,
    *,
    steps: int,
    seed: int,
    threads: int | None = None,
    on_progress: Callable[[str], None] = print,
    recipe: Recipe = _RECIPE,
    n_images: int | None = None,
) -> PretrainReport:
    """Pretrain the backbone and write config, weights and report into the folder `output`.

    Resumes from the checkpoint that an earlier call left there; the weights are the same as after
    one uninterrupted call. While the learning rate is constant, `steps` may still be changed.

    Args:
        output: Created if it does not exist.
        steps: Total optimiser steps.
        seed: Decides the initial weights and the order of pictures; the scenes are always the same.
        threads: CPU threads; default: torch's own choice.
        on_progress: Receives a line now and then.
        recipe: All other settings.
        n_images: Read only the first validation scenes; default: all 48.

    Raises:
        SparBenchError: the checkpoint is from another seed or recipe, or there are too many
            threads.
        Diverged: the loss is no longer finite.
    """
    if threads is not None:
        set_threads(threads)
    output.mkdir(parents=True, exist_ok=True)
    state = Training(seed, steps, recipe)
    checkpoint = output / CHECKPOINT_FILE
    state.resume(checkpoint)
    if state.step:
        on_progress(f"resuming at step {state.step} of {steps}")
    on_progress(f"drawing {recipe.n_scenes} scenes")
    pool = Pool.draw(recipe.n_scenes)
    _train(state, pool, checkpoint, on_progress)
    replace_bytes(output / CONFIG_FILE, (weights.MODEL / CONFIG_FILE).read_bytes())
    weights.save_state_dict(state.model.state_dict(), state.tokens, output)
    on_progress("reading the validation scenes")
    report = _report(state, output, n_images)
    replace_text(output / REPORT_FILE, json.dumps(asdict(report), indent=2) + "\n")
    return report


def _train(
    state: Training, pool: Pool, checkpoint: Path, on_progress: Callable[[str], None]
) -> None:
    """Take the remaining steps."""
    began, before = time.monotonic(), state.seconds
    saved = began
    while state.step < state.steps:
        loss = _loss(state, pool)
        if not math.isfinite(loss.item()):
            raise Diverged(
                f"pretraining: the loss must stay finite, but is not at step {state.step}; use "
                "another --seed"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        state.update()
        state.loss += (loss.item() - state.loss) * max(0.02, 1 / state.step)
        now = time.monotonic()
        state.seconds = before + now - began
        if state.step % 50 == 0:
            on_progress(f"step {state.step} of {state.steps}: loss {state.loss:.4f}")
        if now - saved > CHECKPOINT_S or state.step == state.steps:
            state.save(checkpoint)
            saved = now


def _loss(state: Training, pool: Pool) -> Tensor:
    """Return the loss of the next batch; each class is asked for in a few prompts of its own."""
    # Seeded at each step, so that an interrupted run sees what an uninterrupted one would.
    rng = np.random.default_rng([state.seed, state.step])
    batch = draw_batch(pool, rng, state.recipe.batch)
    n_prompts = state.recipe.prompts_a_class
    prompts = torch.cat([each[rng.integers(len(each), size=n_prompts)] for each in state.prompts])
    value_path = bool(rng.random() < state.recipe.value_path_share)
    with torch.autocast("cpu", torch.bfloat16):
        words = F.normalize(state.model.encode_text(prompts).float(), dim=-1)
        images = _normalised(batch.images)
        features = patch_features(state.model.visual, images, value_path=value_path)
    words = words.view(len(state.prompts), n_prompts, -1)
    return tag_loss(state.model, features, words, batch.regions, batch.tags)


def _normalised(images: Tensor) -> Tensor:
    """Return uint8 images `(B, 3, H, W)` as the backbone takes them."""
    preprocess = open_clip_config()["preprocess_cfg"]
    return normalise(images.float() / 255, preprocess["mean"], preprocess["std"])


def _report(state: Training, output: Path, n_images: int | None) -> PretrainReport:
    """Read the validation scenes with the weights as written, and report what they took."""
    backbone = Backbone(BackboneSpec(name="patchwork"))
    backbone.model.load_state_dict(weights.load_state_dict(output))
    single_pass, teacher = validation_miou(backbone, [TEACHER_STRIDE_PX], n_images=n_images)
    return PretrainReport(
        seed=state.seed,
        steps=state.steps,
        seconds=round(state.seconds, 1),
        loss=round(state.loss, 4),
        single_pass_miou=round(single_pass, 4),
        teacher_miou=round(teacher, 4),
        window_px=WINDOW_PX,
        stride_px=TEACHER_STRIDE_PX,
        n_images=len(Dataset("val", DatasetSettings(count=n_images))),
        device=device_name(torch.device("cpu")),
        torch=torch.__version__,
        recipe=asdict(state.recipe),
    )


def validation_miou(
    backbone: AnyBackbone, stride_px: Sequence[int], *, n_images: int | None = None
) -> list[float]:
    """Return mIoU as fractions: of a single pass, then of the teacher at each stride.

    Windows are 64 px wide, with cosines averaged at pixels.
    """
    scenes = DatasetSpec(name="patchwork", count=n_images, templates="openclip_80")
    single_pass = evaluate(backbone, scenes).miou
    return [single_pass] + [
        evaluate(backbone, scenes, window_px=WINDOW_PX, stride_px=stride).miou
        for stride in stride_px
    ]


def main() -> None:
    """Pretrain as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m recipes.patchwork.pretrain")
    parser.add_argument("output", type=Path, help="an interrupted attempt resumes in it")
    parser.add_argument("--steps", type=int, default=STEPS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="of the CPU; default: torch's choice")
    asked = parser.parse_args()
    print(pretrain(asked.output, steps=asked.steps, seed=asked.seed, threads=asked.threads))


if __name__ == "__main__":
    main()
