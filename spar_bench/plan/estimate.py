"""Estimate what a stage will take: floating-point operations and bytes in the store."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from spar_bench.backbones import Sizes, known_sizes, text_sizes
from spar_bench.plan.cost import (
    Inference,
    image_flops,
    prompt_flops,
    teaching,
    trained_params,
    training_flops,
    windows_flops,
    windows_of,
)
from spar_bench.plan.drawing import drawn_sizes
from spar_bench.plan.inputs import open_dataset
from spar_bench.plan.protocol import Resize
from spar_bench.plan.trials import Plan
from spar_bench.stage import Finished, Stage

DEFAULT_GFLOPS_PER_S = 60.0
"""Speed assumed if the store has no measured stage of a kind: two laptop cores in float32."""
TELLING_GFLOPS = 50.0
"""The time of a smaller stage is mostly loading, so it does not measure speed."""
N_PREVIEWS = 4
"""First images of an evaluation that are kept with labels, as previews; features of the first."""
_N_OPENCLIP = 80
_BYTES = {
    "images": 100,
    "targets": 2,
    "student": 4,
    "text": 4,
    "evaluate": 24,
    "preview": 5,
    "features": 2,
    "cost": 2_000,
    "latency": 4_000,
}


@dataclass(frozen=True)
class Estimate:
    """Work and size of a stage; `n_windows` is per image, 1 without a sliding window."""

    gflops: float
    n_bytes: int
    n_windows: int = 1


def estimate(plan: Plan, stage: Stage) -> Estimate:
    """Return the work and size of a stage, from closed forms at the declared image sizes."""
    makers = {
        "targets": _targets,
        "student": _student,
        "text": _text,
        "evaluate": _evaluate,
        "latency": _latency,
    }
    if stage.kind in makers:
        return makers[stage.kind](plan, stage)
    return Estimate(0.0, _BYTES[stage.kind] * int(stage.settings.get("count", 1)))


def speeds(finished: Iterable[Finished]) -> dict[str, float]:
    """Return the measured GFLOP/s of each kind of stage: the median over stages large enough."""
    found: dict[str, list[float]] = {}
    for stage in finished:
        made = stage.manifest["made"]
        if made.get("gflops", 0.0) >= TELLING_GFLOPS and made.get("seconds"):
            found.setdefault(stage.manifest["kind"], []).append(made["gflops"] / made["seconds"])
    return {kind: median(values) for kind, values in found.items()}


def _drawn(plan: Plan, stage: Stage) -> tuple[Sizes, Mapping[tuple[int, int], int]]:
    """Return the backbone's sizes, and how many of the drawn images have each size."""
    source = open_dataset(stage.how["source"], "train")
    images = plan.stages[stage.inputs["images"]].settings
    counted = drawn_sizes(images, n_source=len(source), source_hw=source.image_hw)
    return known_sizes(stage.how["backbone"]), counted


def _targets(plan: Plan, stage: Stage) -> Estimate:
    sizes, counted = _drawn(plan, stage)
    flops, n_passes = _teaching(sizes, stage.settings, counted)
    n_patches = sum(n * math.prod(sizes.grid_hw(image_hw)) for image_hw, n in counted.items())
    n_bytes = n_patches * sizes.channels * _BYTES["targets"]
    return Estimate(flops / 1e9, n_bytes, round(n_passes / sum(counted.values())))


def _teaching(
    sizes: Sizes, teacher: dict[str, Any], counted: Mapping[tuple[int, int], int]
) -> tuple[int, int]:
    """Return the FLOPs and windows of the teacher for reading each image once."""
    inference = teaching(teacher)
    flops = n_passes = 0
    for image_hw, n_images in counted.items():
        flops += n_images * windows_flops(sizes, inference, image_hw)
        n_passes += n_images * windows_of(sizes, inference, image_hw)
    return flops, n_passes


def _student(plan: Plan, stage: Stage) -> Estimate:
    if "checkpoint" in stage.settings:
        known = known_sizes(stage.how["backbone"])
        return Estimate(0.0, trained_params(known, "all") * _BYTES["student"])
    sizes, counted = _drawn(plan, stage)
    trainable = stage.settings["trainable"]
    an_epoch = sum(n * training_flops(sizes, hw, trainable) for hw, n in counted.items())
    if stage.inputs["targets"] not in plan.stages:  # not kept: computed in every epoch
        an_epoch += _teaching(sizes, stage.how["teacher"], counted)[0]
    n_bytes = trained_params(sizes, trainable) * _BYTES["student"]
    return Estimate(stage.settings["epochs"] * an_epoch / 1e9, n_bytes)


def _text(_: Plan, stage: Stage) -> Estimate:
    spec, templates = stage.how["backbone"], stage.settings["templates"]
    n_names = sum(map(len, stage.settings["classes"]))
    n_prompts = n_names * (_N_OPENCLIP if templates == "openclip_80" else len(templates))
    n_bytes = n_names * known_sizes(spec).channels * _BYTES["text"]
    return Estimate(n_prompts * prompt_flops(text_sizes(spec)) / 1e9, n_bytes)


def _evaluate(plan: Plan, stage: Stage) -> Estimate:
    sizes = known_sizes(stage.how["backbone"])
    inference = Inference(**stage.settings["inference"])
    image_hw = Resize.of_stage(stage).of(stage.how["image_hw"])
    n_classes = len(stage.settings["classes"])
    flops = image_flops(
        sizes, inference, image_hw, n_queries=sum(map(len, stage.settings["classes"]))
    )
    n_images, (height, width) = stage.how["n_images"], stage.how["image_hw"]
    rows, columns = sizes.grid_hw(image_hw)
    n_bytes = (
        n_images * n_classes * _BYTES["evaluate"]
        + min(n_images, N_PREVIEWS) * height * width * _BYTES["preview"]
        + rows * columns * sizes.channels * _BYTES["features"]
    )
    return Estimate(flops * n_images / 1e9, n_bytes, windows_of(sizes, inference, image_hw))


def _latency(plan: Plan, stage: Stage) -> Estimate:
    """Five passes of every arm: warm-up, three rounds and one for memory."""
    flops = 5 * sum(
        image_flops(
            Sizes(**arm["sizes"]),
            Inference(**arm["inference"]),
            tuple(arm["image_hw"]),
            n_queries=arm["n_queries"],
        )
        for arm in stage.settings["arms"].values()
    )
    return Estimate(flops / 1e9, _BYTES["latency"] * len(stage.settings["arms"]))
