"""Students that train side by side: pictures, targets and frozen blocks are read once for all.

Each has its own weights, optimiser and loss, and becomes what it would alone: bit for bit on the
CPU in float32. One may be further than the others, after a resumption: it waits for them.

Shape legend: C channels, h x w patch grid.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spar_bench import registry
from spar_bench.components.flops import training_flops
from spar_bench.errors import Diverged, SparBenchError
from spar_bench.run.context import Context, autocast, build_backbone, moved
from spar_bench.run.distributed import Ranks, Trained, only_here
from spar_bench.run.frozen import Entry, Frozen, frozen_depth, trained_part
from spar_bench.run.images import Pictures, normalise
from spar_bench.run.products import wide_products
from spar_bench.run.resume import RESUME_FILE, SAVE_EVERY_S
from spar_bench.run.teach import Targets, open_images
from spar_bench.run.training import Training
from spar_bench.spec.plugins import PluginSpec
from spar_bench.stages import student

SETTLE_EVERY = {"cuda": 16}
"""Steps after which losses are read, by kind of device, else 1; and at an epoch's end. Until then a
GPU need not wait for the host that asks for them; in float16, it waits for the scaler all the same.
"""


class _Step(NamedTuple):
    """A step that a student took, and is not settled: its losses are still on the device.

    `losses`, `flops` and `taught` are as in `_Part`, of this process's images; `at_ms` is when it
    was taken, in milliseconds since the epoch.
    """

    number: int
    n_images: int
    losses: list[Tensor]
    flops: list[int]
    taught: list[int]
    at_ms: int


@dataclass(eq=False)
class Run:
    """A student in training; `trained` maps an entry to features, with gradients of all processes.

    `unsettled` are its latest steps; `failure` is why it is given up.
    """

    stage: student.Stage
    training: Training
    loss: "_CheckedLoss"
    resume: Path
    depth: int | None
    trained: Trained
    unsettled: list[_Step] = field(default_factory=list)
    failure: Exception | None = None

    def save(self) -> None:
        """Save what the next attempt resumes from; all its steps are settled."""
        if self.failure is None:
            self.training.save(self.resume)

    def flops(self, image_hw: tuple[int, int]) -> int:
        """Return the FLOPs of a forward and backward pass over an image, frozen blocks included."""
        return training_flops(self.training.backbone.sizes, image_hw, self.training.spec.trainable)


@dataclass
class _Part:
    """This process's part of a student's step: losses and work of its images.

    `last` is the last image's share of the loss where processes train together: its backward pass
    averages the gradients of all, so it runs when all have read their images. `flops` are those of
    each image for a student alone, `taught` the teacher's; `done` is what was done for this student
    here, without frozen blocks.
    """

    last: Tensor | None = None
    losses: list[Tensor] = field(default_factory=list)
    flops: list[int] = field(default_factory=list)
    taught: list[int] = field(default_factory=list)
    done: int = 0


@dataclass
class Group:
    """Students that read one stream of images; `step` is the one they take together.

    `stream` yields this process's images.
    """

    runs: Sequence[Run]
    pictures: Pictures
    targets: Targets
    frozen: Frozen
    context: Context
    step: int
    stream: Iterator[Tensor] = field(default_factory=lambda: iter(()))
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def schedule(self) -> Training:
        """Any student's state: order and number of steps are those of all."""
        return self.runs[0].training

    @property
    def left(self) -> list[Run]:
        """The students that are not given up."""
        return [run for run in self.runs if run.failure is None]

    @property
    def active(self) -> list[Run]:
        """The students that take this step."""
        return [run for run in self.left if run.training.step == self.step]


def train(stages: list[student.Stage], context: Context, folders: list[Path]) -> list[Run]:
    """Take all steps of students, together with the other processes; resume from their folders.

    Returns a run for each; one that diverged has a failure.

    Raises:
        Interrupted: the user asked to stop; the next attempt resumes here.
    """
    ranks = context.ranks
    group = ranks.agree(partial(begin, stages, context, folders))
    for run in group.runs:
        here = run.training.step
        mean = ranks.sum(torch.tensor(here)).item() / ranks.n
        ranks.agree(partial(_require_same_step, here, mean))
        run.trained = ranks.joined(run.training.backbone.visual, run.trained)
    first = group.step
    stream = group.pictures.stream(group.schedule.upcoming(first, ranks.own), context.workers)
    with closing(stream) as group.stream, wide_products(context.device):
        while group.step < group.schedule.n_steps and group.left:
            _step(group, first)
    context.flops += group.frozen.flops
    with ranks.in_step():
        context.flops = ranks.sum(torch.tensor(context.flops, dtype=torch.float64)).item()
    for run in group.left:
        if run.training.step > first:
            context.prune(*run.training.epoch_loss)
    return list(group.runs)


def begin(stages: list[student.Stage], context: Context, folders: list[Path]) -> Group:
    """Build the states of students and resume where earlier attempts stopped."""
    lead, runs = stages[0], list[Run]()
    pictures = open_images(lead, context)
    n_images = len(pictures) // lead.settings.n_lists
    for stage, folder in zip(stages, folders, strict=True):
        backbone = build_backbone(stage.places.backbone, context.device)
        settings = stage.settings
        training = Training(backbone, settings.recipe, settings.seed, n_images, settings.n_lists)
        training.resume(folder / RESUME_FILE)
        depth = frozen_depth(backbone, settings.recipe.trainable)
        runs.append(
            Run(
                stage,
                training,
                _CheckedLoss(stage.places.loss),
                folder / RESUME_FILE,
                depth,
                trained_part(backbone, depth),
            )
        )
    deepest = max(runs, key=lambda run: -1 if run.depth is None else run.depth)
    recipe = lead.settings.recipe
    frozen = Frozen(
        deepest.training.backbone,
        [run.depth for run in runs],
        recipe.precision,
        is_read_again=lead.settings.reads_again,
    )
    step = min(run.training.step for run in runs)
    return Group(runs, pictures, Targets(lead, context), frozen, context, step)


def _require_same_step(here: int, mean: float) -> None:
    if here != mean:
        raise SparBenchError(
            f"processes: must all see one store, but they resume at different steps ({here} "
            "here); give a folder that all of them share as --store"
        )


def _step(group: Group, first: int) -> None:
    """Read the images of a step, and update each student that takes it."""
    ranks = group.context.ranks

    def read() -> list[_Part]:
        if ranks.rank == 0:
            _between_steps(group, first)
        return read_step(group)

    try:
        parts = ranks.agree(read)
        for run, part in zip(group.active, parts, strict=True):
            _update(run, part, group)
    except Exception:
        if not ranks.is_out_of_step:
            _settle(group)
            if not group.left:
                return  # a student that has diverged may fail in any way until that is seen
            if ranks.rank == 0:
                for run in group.left:
                    run.save()
        raise
    group.step += 1
    every = SETTLE_EVERY.get(group.context.device.type, 1)
    if group.step % every == 0 or group.step % group.schedule.steps_an_epoch == 0:
        _settle(group)


def _between_steps(group: Group, first: int) -> None:
    """Report progress, stop if asked to, save now and then.

    Raises:
        Interrupted: the user asked to stop; the next attempt resumes here.
        Pruned: a search stops a student.
    """
    context, schedule = group.context, group.schedule
    for run in group.active:
        if run.training.ends_epoch and group.step > first:
            context.prune(*run.training.epoch_loss)
    context.check()
    context.report(group.runs[0].stage, group.step / schedule.n_steps)
    is_settled = not any(run.unsettled for run in group.left)
    if is_settled and time.monotonic() - group.saved_at > SAVE_EVERY_S:
        for run in group.left:
            run.save()
        group.saved_at = time.monotonic()


def read_step(group: Group) -> list[_Part]:
    """Read this process's images of the step for each student that takes it, with gradients."""
    positions, ranks = group.schedule.positions(group.step), group.context.ranks
    own, active = ranks.own(len(positions)), group.active
    parts = [_Part() for _ in active]
    if not own:  # more processes than images: take part with a zero gradient
        for run, part in zip(active, parts, strict=True):
            part.last = _nothing(run, group)
        return parts
    for place in own:
        began, picture = time.monotonic(), next(group.stream)
        if not active:
            continue
        target, taught = group.targets.read(positions[place], picture)
        backbone, device = group.schedule.backbone, group.context.device
        image = moved(normalise(picture, backbone.mean, backbone.std), device)
        entries = group.frozen.entries(positions[place], image)
        shared_s = (time.monotonic() - began) / len(active)
        for run, part in zip(active, parts, strict=True):
            run.training.seconds += shared_s
            part.taught.append(taught)
            image_hw = picture.shape[-2], picture.shape[-1]
            part.flops.append(run.flops(image_hw))
            part.done += run.stage.own_flops(image_hw)
            share, is_last = ranks.n / len(positions), ranks.n > 1 and place == own[-1]
            _read(run, part, entries[run.depth], target[None], share=share, is_last=is_last)
    return parts


def _read(
    run: Run, part: _Part, entry: Entry, target: Tensor, *, share: float, is_last: bool
) -> None:
    """Read one image with a student, and go back through it unless it is the last.

    `share` is its weight in the loss: torch averages gradients over processes, but we want the mean
    over images, of which processes may have uneven numbers.
    """
    began = time.monotonic()
    with nullcontext() if is_last else only_here(run.trained):
        with autocast(target.device, run.training.spec.precision):
            features = run.trained(*entry)
        loss = run.loss(features.float(), target)
        scaled = run.training.scaler.scale(loss * share)
        if is_last:
            part.last = scaled
        else:
            scaled.backward()  # type: ignore[no-untyped-call]
    part.losses.append(loss.detach())
    run.training.seconds += time.monotonic() - began


def _nothing(run: Run, group: Group) -> Tensor:
    """Return a loss without an image, whose gradient is zero."""
    side_px = run.training.backbone.sizes.image_px
    blank = torch.zeros(3, side_px, side_px, device=group.context.device)
    entry = group.frozen.entries(-1, blank)[run.depth]
    return run.training.scaler.scale(run.trained(*entry).float().sum() * 0)


def _update(run: Run, part: _Part, group: Group) -> None:
    """Average the gradients of a step's images and update a student once."""
    training, context, began = run.training, group.context, time.monotonic()
    with context.ranks.in_step():
        if part.last is not None:
            part.last.backward()  # type: ignore[no-untyped-call]
        number, n_images = training.step, len(training.positions(training.step))
        training.update()
    taken = part.losses, part.flops, part.taught
    run.unsettled.append(_Step(number, n_images, *taken, time.time_ns() // 1_000_000))
    context.flops += part.done
    if context.ranks.rank == 0:  # each process does it
        context.flops += run.stage.update_flops
    training.seconds += time.monotonic() - began


def _settle(group: Group) -> None:
    """Note the losses of all unsettled steps; give up a student whose loss is not finite."""
    ranks = group.context.ranks
    for run in group.left:
        began, training = time.monotonic(), run.training
        steps, run.unsettled = run.unsettled, []
        if not steps:
            continue
        with ranks.in_step():
            told = ranks.sum(torch.cat([_told(step, ranks) for step in steps], dim=1))
        of_steps = told.split_with_sizes([step.n_images for step in steps], dim=1)
        for step, (losses, flops, taught) in zip(steps, of_steps, strict=True):
            for of_image in flops.tolist():
                training.gflops += of_image / 1e9
            for of_image in taught.tolist():
                training.teach_gflops += of_image / 1e9
            mean_loss = float(losses.float().mean())
            if not math.isfinite(mean_loss):
                run.failure = diverged("loss", mean_loss, training, step.number)
                break
            training.gflops += run.stage.update_flops / 1e9
            training.curve.append((step.number, mean_loss, step.at_ms))
        training.seconds += time.monotonic() - began


def _told(step: _Step, ranks: Ranks) -> Tensor:
    """Return losses, FLOPs and the teacher's, `(3, images)`; 0 for other processes' images."""
    told = torch.zeros(3, step.n_images, dtype=torch.float64)
    if step.losses:
        own = ranks.own(step.n_images)
        told[0, own] = torch.stack(step.losses).cpu().double()
        told[1, own] = torch.tensor(step.flops, dtype=torch.float64)
        told[2, own] = torch.tensor(step.taught, dtype=torch.float64)
    return told


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


def diverged(what: str, value: float, run: Training, step: int) -> Diverged:
    """Return the error of a student whose loss or weights are not finite at a step."""
    return Diverged(
        f"student: the {what} must stay finite, but is {value} at step {step} of "
        f"{run.n_steps}; lower student.learning_rate ({run.spec.learning_rate})"
    )
