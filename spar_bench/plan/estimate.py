"""What a stage will take before it is made: floating-point operations and bytes in the store."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from spar_bench.backbones import Sizes, known_sizes
from spar_bench.plan.cost import (
    Inference,
    encoder_flops,
    image_flops,
    pass_hw,
    trained_params,
    training_flops,
    windows_of,
)
from spar_bench.plan.inputs import declared_hw
from spar_bench.plan.protocol import Resize
from spar_bench.plan.stages import resized_hw
from spar_bench.plan.trials import Plan
from spar_bench.stage import Finished, Stage

DEFAULT_GFLOPS_PER_S = 60.0
"""Speed assumed where the store has no measured stage of the kind: two laptop cores in float32."""
N_PREVIEWS = 4
"""First images of an evaluation kept with their labels, to be looked at; features of the first."""
_BYTES = {
    "images": 100,
    "targets": 2,
    "student": 4,
    "evaluate": 24,
    "preview": 5,
    "features": 2,
    "cost": 2_000,
    "latency": 4_000,
}


@dataclass(frozen=True)
class Estimate:
    """Work and size of a stage to be made; `n_windows` is of one image, 1 where none slides."""

    gflops: float
    n_bytes: int
    n_windows: int = 1


def estimate(plan: Plan, stage: Stage) -> Estimate:
    """Return the work and size of a stage, from closed forms at the declared image sizes."""
    makers = {
        "targets": _targets,
        "student": _student,
        "evaluate": _evaluate,
        "latency": _latency,
    }
    if stage.kind in makers:
        return makers[stage.kind](plan, stage)
    return Estimate(0.0, _BYTES[stage.kind] * int(stage.settings.get("count", 1)))


def speeds(finished: Iterable[Finished]) -> dict[str, float]:
    """Return the measured GFLOP/s of each kind of stage: the median of those made."""
    found: dict[str, list[float]] = {}
    for stage in finished:
        made = stage.manifest["made"]
        if made.get("gflops") and made.get("seconds"):
            found.setdefault(stage.manifest["kind"], []).append(made["gflops"] / made["seconds"])
    return {kind: sorted(values)[len(values) // 2] for kind, values in found.items()}


def _drawn_hw(images: dict[str, Any], source_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a drawn image at the middle of the range of short sides.

    A crop keeps a share of each side that is uniform in 0.4 to 1.
    """
    low, high = images["short_side_px"]
    height, width = resized_hw(source_hw, (low + high) // 2)
    kept = 1 - 0.3 * images["crop"]
    patch_px = images["patch_px"]
    return (
        max(int(height * kept) // patch_px, 1) * patch_px,
        max(int(width * kept) // patch_px, 1) * patch_px,
    )


def _drawn(plan: Plan, stage: Stage) -> tuple[Sizes, dict[str, Any], tuple[int, int]]:
    images = plan.stages[stage.inputs["images"]].settings
    source_hw = declared_hw(stage.how["source"], "train")
    return known_sizes(stage.how["backbone"]), images, _drawn_hw(images, source_hw)


def _targets(plan: Plan, stage: Stage) -> Estimate:
    sizes, images, image_hw = _drawn(plan, stage)
    inference = Inference(
        "sliding_window",
        window_px=stage.settings["window_px"],
        stride_px=stage.settings["stride_px"],
        average="features",
    )
    passes = windows_of(sizes, inference, image_hw)
    flops = images["count"] * passes * encoder_flops(sizes, pass_hw(inference, image_hw))
    rows, columns = sizes.grid_hw(image_hw)
    n_bytes = images["count"] * rows * columns * sizes.channels * _BYTES["targets"]
    return Estimate(flops / 1e9, n_bytes, passes)


def _student(plan: Plan, stage: Stage) -> Estimate:
    if "checkpoint" in stage.settings:
        known = known_sizes(stage.how["backbone"])
        return Estimate(0.0, trained_params(known, "all") * _BYTES["student"])
    sizes, images, image_hw = _drawn(plan, stage)
    passes = images["count"] * stage.settings["epochs"]
    flops = passes * training_flops(sizes, image_hw, stage.settings["trainable"])
    n_params = trained_params(sizes, stage.settings["trainable"])
    return Estimate(flops / 1e9, n_params * _BYTES["student"])


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
