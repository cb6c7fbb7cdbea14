"""Distil the teacher into a student: regress its features in one pass, resumable at any step.

Shape legend: C channels, h x w patch grid.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from spar_bench import registry
from spar_bench.backbones.base import Backbone
from spar_bench.errors import Diverged, SparBenchError
from spar_bench.files import replace_bytes, replace_text
from spar_bench.plan.cost import training_flops
from spar_bench.run.checkpoint import load_checkpoint, save_checkpoint
from spar_bench.run.context import TRAINED_FILE, Context, Interrupted, autocast, build_backbone
from spar_bench.run.images import Pictures, normalise
from spar_bench.run.teach import open_images, read_target
from spar_bench.run.trainable import set_trainable
from spar_bench.spec.schema import StudentSpec
from spar_bench.stage import Finished, Stage

CHECKPOINT_S = 20.0
"""Seconds between checkpoints: what a kill can cost."""
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 250_000


def learning_rate_factor(schedule: str, step: int, n_steps: int) -> float:
    """Return the factor on the learning rate at a step, 0 to n_steps - 1.

    `one_cycle` rises by a half cosine from 1/25 over the first 30 %, then falls to 1/250000;
    `cosine` falls from 1 to 0. Source: torch's OneCycleLR with its defaults, momentum left alone.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return _half_cosine(1.0, 0.0, step / n_steps)
    rise = ONE_CYCLE_RISE * n_steps - 1
    if step <= rise:
        return _half_cosine(ONE_CYCLE_START, 1.0, step / rise)
    return _half_cosine(1.0, ONE_CYCLE_END, (step - rise) / (n_steps - 1 - rise))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def order(n_images: int, seed: int, epoch: int) -> list[int]:
    """Return the order of images in an epoch, which seed and epoch alone decide."""
    return [int(i) for i in np.random.default_rng([seed, epoch]).permutation(n_images)]


def make_student(stage: Stage, context: Context) -> dict[str, Any]:
    """Train a student; writes `trained.safetensors` (what was trained) and `curve.json`.

    Raises:
        Diverged: the loss is no longer finite.
    """
    settings = {k: v for k, v in stage.settings.items() if k in StudentSpec.model_fields}
    spec = StudentSpec(**settings)
    pictures = open_images(stage, context)
    targets = context.finished(stage, "targets", "targets")
    backbone = build_backbone(stage.how["backbone"], context.device)
    scratch = context.store.scratch(stage)
    run = _Training(backbone, spec, stage.settings["seed"], len(pictures))
    run.resume(scratch / "checkpoint.safetensors")
    saved_at = time.monotonic()
    while run.step < run.n_steps:
        try:
            context.check()
        except Interrupted:
            run.save(scratch / "checkpoint.safetensors")
            raise
        context.report(stage, run.step / run.n_steps)
        _take_step(run, pictures, targets, context)
        if run.ends_epoch:
            context.prune(*run.epoch_loss)
        if time.monotonic() - saved_at > CHECKPOINT_S:
            run.save(scratch / "checkpoint.safetensors")
            saved_at = time.monotonic()
    if not all(tensor.isfinite().all() for tensor in run.trained().values()):
        raise _diverged("weights", math.nan, run)  # the last step broke them: no loss shows it
    replace_bytes(scratch / "output" / TRAINED_FILE, save(run.trained()))
    replace_text(scratch / "output" / "curve.json", json.dumps(run.curve))
    return {
        "n_steps": run.n_steps,
        "trained_params": sum(p.numel() for p in run.parameters),
        "final_loss": float(np.mean([loss for _, loss, _ in run.curve[-run.steps_an_epoch :]])),
        "train_gflops": run.gflops,
        "backbone": stage.how["backbone"].model_dump(mode="json"),
    }


def _take_step(run: "_Training", pictures: Pictures, targets: Finished, context: Context) -> None:
    """Average the gradients of the next images and update the student once."""
    loss_of: Callable[[Tensor, Tensor], Tensor] = registry.load("losses", run.spec.loss)
    backbone, device = run.backbone, context.device
    positions = run.next_positions()
    losses = []
    for position in positions:
        picture = pictures[position]
        image = normalise(picture, backbone.mean, backbone.std).to(device)
        target = read_target(targets, position).to(device)
        with autocast(device, run.spec.precision):
            features = backbone.features(image[None])
        loss = _scalar(run.spec.loss, loss_of(features.float(), target[None]))
        run.scaler.scale(loss / len(positions)).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        image_hw = (picture.shape[-2], picture.shape[-1])
        flops = training_flops(backbone.sizes, image_hw, run.spec.trainable)
        context.flops += flops
        run.gflops += flops / 1e9
    mean_loss = float(torch.stack(losses).mean())
    if not math.isfinite(mean_loss):
        raise _diverged("loss", mean_loss, run)
    run.update(mean_loss)


def _scalar(name: str, loss: Any) -> Tensor:
    """Return what a loss plug-in gave, held to its contract.

    Raises:
        SparBenchError: it is no scalar `()`, or has no gradient.
    """
    if isinstance(loss, Tensor) and loss.shape == () and loss.requires_grad:
        return loss
    found = type(loss).__name__
    if isinstance(loss, Tensor):
        found = f"{tuple(loss.shape)}, {'with' if loss.requires_grad else 'without'} gradient"
    raise SparBenchError(
        f"loss {name!r}: must return a scalar tensor, (), with gradient, but got {found}; mend "
        f"{registry.source('losses', name)}"
    )


def _diverged(what: str, value: float, run: "_Training") -> Diverged:
    return Diverged(
        f"student: the {what} must stay finite, but is {value} at step {run.step} of "
        f"{run.n_steps}; lower student.learning_rate ({run.spec.learning_rate})"
    )


@dataclass
class _Training:
    """A student's state: everything that the next step depends on, so that a resume is exact.

    `curve` holds (step, loss, milliseconds since the epoch).
    """

    backbone: Backbone
    spec: StudentSpec
    seed: int
    n_images: int
    step: int = 0
    gflops: float = 0.0
    curve: list[tuple[int, float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters = set_trainable(self.backbone, self.spec.trainable)
        self.optimiser = _optimiser(self.spec, self.parameters)
        device = self.parameters[0].device.type
        self.scaler = torch.amp.GradScaler(device, enabled=self.spec.precision == "float16")

    @property
    def steps_an_epoch(self) -> int:
        return -(-self.n_images // self.spec.accumulate)

    @property
    def n_steps(self) -> int:
        return self.spec.epochs * self.steps_an_epoch

    @property
    def ends_epoch(self) -> bool:
        return self.step % self.steps_an_epoch == 0

    @property
    def epoch_loss(self) -> tuple[int, float]:
        losses = [loss for _, loss, _ in self.curve[-self.steps_an_epoch :]]
        return self.step // self.steps_an_epoch, float(np.mean(losses))

    def next_positions(self) -> list[int]:
        epoch, within = divmod(self.step, self.steps_an_epoch)
        first = within * self.spec.accumulate
        return order(self.n_images, self.seed, epoch)[first : first + self.spec.accumulate]

    def update(self, loss: float) -> None:
        factor = learning_rate_factor(self.spec.schedule, self.step, self.n_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = self.spec.learning_rate * factor
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.curve.append((self.step, loss, time.time_ns() // 1_000_000))
        self.step += 1

    def trained(self) -> dict[str, Tensor]:
        """Return what trains, by its name in the image tower."""
        named = self.backbone.visual.named_parameters()
        return {n: p.detach().cpu().contiguous() for n, p in named if p.requires_grad}

    def save(self, path: Path) -> None:
        """Write weights, optimiser state and place in the order as one safetensors file."""
        tensors = {f"weight/{name}": value for name, value in self.trained().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimiser/{index}/{key}"] = torch.as_tensor(value).cpu().contiguous()
        words = {
            "step": self.step,
            "gflops": self.gflops,
            "curve": self.curve,
            "scaler": self.scaler.state_dict(),
        }
        save_checkpoint(path, tensors, words)

    def resume(self, path: Path) -> None:
        """Go back to the state that `save` wrote, if it did."""
        checkpoint = load_checkpoint(path)
        if checkpoint is None:
            return
        tensors, words = checkpoint
        named: dict[str, nn.Parameter] = dict(self.backbone.visual.named_parameters())
        state: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for name, tensor in tensors.items():
                kind, rest = name.split("/", 1)
                if kind == "weight":
                    named[rest].copy_(tensor)
                else:
                    index, key = rest.split("/")
                    state.setdefault(int(index), {})[key] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.scaler.load_state_dict(words["scaler"])
        self.step, self.gflops = words["step"], words["gflops"]
        self.curve = [tuple(point) for point in words["curve"]]


def _optimiser(spec: StudentSpec, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if spec.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    return torch.optim.SGD(
        parameters, lr=spec.learning_rate, momentum=0.9, weight_decay=spec.weight_decay
    )
