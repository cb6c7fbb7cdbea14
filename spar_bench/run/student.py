"""Distil the teacher into a student: regress its features in one pass, resumable at any step.

Shape legend: C channels, h x w patch grid.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from spar_bench import registry
from spar_bench.components.flops import training_flops
from spar_bench.errors import Diverged, SparBenchError
from spar_bench.files import replace_bytes, replace_text
from spar_bench.run.context import Context, Interrupted, autocast, build_backbone
from spar_bench.run.distributed import Encode, LeftOff, only_here
from spar_bench.run.images import Pictures, normalise
from spar_bench.run.resume import RESUME_FILE, SAVE_EVERY_S
from spar_bench.run.teach import Targets, open_images
from spar_bench.run.training import Training
from spar_bench.spec.plugins import PluginSpec
from spar_bench.stages import student
from spar_bench.stages.base import stage_from_json


def make_students(stages: list[student.Stage], context: Context) -> list[student.Summary]:
    """Train students; writes what was trained, and the loss curve.

    Raises:
        Diverged: a loss is no longer finite.
    """
    return [_make_student(stage, context) for stage in stages]


def _make_student(stage: student.Stage, context: Context) -> student.Summary:
    scratch = context.store.scratch(stage)
    resume = str(scratch.relative_to(context.store.root))
    context.ranks.say({"stage": stage.to_json(), "scratch": resume})
    run = _train(stage, context, scratch)
    if not all(tensor.isfinite().all() for tensor in run.trained().values()):
        raise _diverged("weights", math.nan, run)  # broken by the last step, which no loss shows
    output = context.store.output(stage)
    replace_bytes(output / student.TRAINED_FILE, save(run.trained()))
    replace_text(output / student.CURVE_FILE, json.dumps(run.curve))
    return student.Summary(
        n_steps=run.n_steps,
        trained_params=sum(p.numel() for p in run.parameters),
        final_loss=float(np.mean([loss for _, loss, _ in run.curve[-run.steps_an_epoch :]])),
        train_gflops=run.gflops,
        backbone=stage.places.backbone,
    )


def join_student(value: Mapping[str, Any], context: Context) -> None:
    """Train the student that the first process named; that one keeps the result and errors."""
    context.flops = 0.0
    stage = stage_from_json(value["stage"])
    assert isinstance(stage, student.Stage), "only students are trained together"
    with suppress(LeftOff, Diverged):
        _train(stage, context, context.store.root / value["scratch"])


@dataclass
class _Steps:
    """What a student's steps take: images in their order, the targets, and the loss.

    `stream` yields this process's images.
    """

    pictures: Pictures
    targets: Targets
    loss: "_CheckedLoss"
    stream: Iterator[Tensor] = field(default_factory=lambda: iter(()))


def _train(stage: student.Stage, context: Context, scratch: Path) -> Training:
    """Take all steps of a student, together with the other processes; resumes from `scratch`."""
    ranks = context.ranks
    run, steps = ranks.agree(partial(_begin, stage, context, scratch))
    mean_step = ranks.sum(torch.tensor(run.step)).item() / ranks.n
    ranks.agree(partial(_require_same_step, run, mean_step))
    encode, first, saved_at = ranks.joined(run.backbone), run.step, time.monotonic()

    def read() -> _Read:
        nonlocal saved_at
        if ranks.rank == 0:
            saved_at = _between_steps(run, stage, context, saved_at=saved_at, first=first)
        return _read_images(run, steps, context, encode)

    stream = steps.pictures.stream(run.upcoming(ranks.own), context.workers)
    with closing(stream) as steps.stream:
        while run.step < run.n_steps:
            _take_step(run, ranks.agree(read), context)
    with ranks.in_step():
        context.flops = ranks.sum(torch.tensor(context.flops, dtype=torch.float64)).item()
    if run.step > first:
        context.prune(*run.epoch_loss)
    return run


def _begin(stage: student.Stage, context: Context, scratch: Path) -> "tuple[Training, _Steps]":
    """Build a student's state and resume where an earlier attempt stopped."""
    pictures = open_images(stage, context)
    backbone = build_backbone(stage.places.backbone, context.device)
    run = Training(backbone, stage.settings.recipe, stage.settings.seed, len(pictures))
    run.resume(scratch / RESUME_FILE)
    return run, _Steps(pictures, Targets(stage, context), _CheckedLoss(stage.places.loss))


def _require_same_step(run: Training, mean_step: float) -> None:
    if run.step != mean_step:
        raise SparBenchError(
            f"processes: must all see one store, but they resume at different steps ({run.step} "
            "here); give a folder that all of them share as --store"
        )


def _between_steps(
    run: Training, stage: student.Stage, context: Context, *, saved_at: float, first: int
) -> float:
    """Report progress, stop if asked to, save now and then; return when it was last saved.

    Raises:
        Interrupted: the user asked to stop; the next attempt resumes here.
        Pruned: a search stops this student.
    """
    resume = context.store.scratch(stage) / RESUME_FILE
    if run.ends_epoch and run.step > first:
        context.prune(*run.epoch_loss)
    try:
        context.check()
    except Interrupted:
        run.save(resume)
        raise
    context.report(stage, run.step / run.n_steps)
    if time.monotonic() - saved_at <= SAVE_EVERY_S:
        return saved_at
    run.save(resume)
    return time.monotonic()


@dataclass
class _Read:
    """This process's part of a step: losses and FLOPs of its images.

    `last` is the last image's share of the loss; its backward pass averages the gradients of all
    processes, so it runs when all have read their images.
    """

    last: Tensor
    losses: list[Tensor] = field(default_factory=list)
    flops: list[int] = field(default_factory=list)


def _read_images(run: Training, steps: _Steps, context: Context, encode: Encode) -> _Read:
    """Read this process's images of the next step, with backward passes for all but the last."""
    positions, ranks = run.positions(run.step), context.ranks
    own = ranks.own(len(positions))
    if not own:  # more processes than images: take part with a zero gradient
        side_px = run.backbone.sizes.image_px
        blank = torch.zeros(1, 3, side_px, side_px, device=context.device)
        return _Read(run.scaler.scale(encode(blank).float().sum() * 0))
    losses, flops = list[Tensor](), list[int]()
    for place in own:
        picture = next(steps.stream)
        target = steps.targets.read(positions[place], picture)
        image = normalise(picture, run.backbone.mean, run.backbone.std).to(context.device)
        is_last = place == own[-1]
        with nullcontext() if is_last else only_here(encode):
            with autocast(context.device, run.spec.precision):
                features = encode(image[None])
            loss = steps.loss(features.float(), target[None])
            # torch averages over processes, but we want images: shares may be uneven.
            scaled = run.scaler.scale(loss * ranks.n / len(positions))
            if not is_last:
                scaled.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        image_hw = (picture.shape[-2], picture.shape[-1])
        flops.append(training_flops(run.backbone.sizes, image_hw, run.spec.trainable))
    return _Read(scaled, losses, flops)


def _take_step(run: Training, read: _Read, context: Context) -> None:
    """Average the gradients of a step's images and update the student once.

    Raises:
        Diverged: the loss is no longer finite.
    """
    ranks, n_images = context.ranks, len(run.positions(run.step))
    losses_and_flops = torch.zeros(2, n_images, dtype=torch.float64)
    with ranks.in_step():
        read.last.backward()  # type: ignore[no-untyped-call]
        if read.losses:
            own = ranks.own(n_images)
            losses_and_flops[0, own] = torch.stack(read.losses).cpu().double()
            losses_and_flops[1, own] = torch.tensor(read.flops, dtype=torch.float64)
        losses, flops = ranks.sum(losses_and_flops)
    context.flops += sum(read.flops)
    for of_image in flops.tolist():
        run.gflops += of_image / 1e9
    mean_loss = float(losses.float().mean())
    if not math.isfinite(mean_loss):
        raise _diverged("loss", mean_loss, run)
    run.update(mean_loss)


class _CheckedLoss:
    """A loss plug-in, whose values are held to its contract."""

    def __init__(self, spec: PluginSpec) -> None:
        self._spec = spec
        self._loss = registry.configured("losses", spec.name, spec.settings)

    def __call__(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the loss of features `(1, C, h, w)`.

        Raises:
            SparBenchError: it is not a scalar `()`, or has no gradient.
        """
        loss: Any = self._loss(features, target)
        if isinstance(loss, Tensor) and loss.shape == () and loss.requires_grad:
            return loss
        found = type(loss).__name__
        if isinstance(loss, Tensor):
            found = f"{tuple(loss.shape)}, {'with' if loss.requires_grad else 'without'} gradient"
        raise SparBenchError(
            f"loss {self._spec.name!r}: must return a scalar tensor, (), with gradient, but got "
            f"{found}; fix {registry.source('losses', self._spec.name)}"
        )


def _diverged(what: str, value: float, run: Training) -> Diverged:
    return Diverged(
        f"student: the {what} must stay finite, but is {value} at step {run.step} of "
        f"{run.n_steps}; lower student.learning_rate ({run.spec.learning_rate})"
    )
