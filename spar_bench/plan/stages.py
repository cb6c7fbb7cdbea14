"""The stages that settings need: what decides each, and what it is made from.

    images ─> targets ─> student ─┐
    backbone ─────────────────────┼─> evaluate        cost, latency
    class names ─> text ──────────┘

A stage's `how` is what its maker needs in addition to what decides it, such as the folder of
images: the fingerprint has their contents instead.
"""

from dataclasses import asdict
from typing import Any

from spar_bench import backbones, registry
from spar_bench.backbones import known_sizes
from spar_bench.plan.cost import SINGLE_PASS, Inference
from spar_bench.plan.inputs import (
    Labelled,
    backbone_identity,
    checkpoint_digest,
    dataset_identity,
)
from spar_bench.spec.schema import (
    BackboneSpec,
    Method,
    Settings,
    StudentSpec,
)
from spar_bench.stage import Stage, digest
from spar_bench.windows import upsample_factor

VERSIONS = {
    "images": 2,
    "targets": 1,
    "student": 1,
    "text": 1,
    "evaluate": 4,
    "cost": 1,
    "latency": 3,
}
"""Increased when the numbers or files that a kind of stage produces change."""


def resized_hw(
    image_hw: tuple[int, int],
    short_side_px: int,
    long_side_px: int | None = None,
    *,
    half_up: bool = False,
) -> tuple[int, int]:
    """Return the size of an image with its short side resized to `short_side_px`, ratio kept.

    If the long side would exceed `long_side_px`, it is resized to that. Half a pixel is rounded to
    even, or with `half_up` up, as in the paper's protocol. Source: mmcv, `imrescale`.
    """
    scale = short_side_px / min(image_hw)
    if long_side_px is not None:
        scale = min(scale, long_side_px / max(image_hw))
    height, width = (side * scale for side in image_hw)
    return (int(height + 0.5), int(width + 0.5)) if half_up else (round(height), round(width))


def window_px(settings: Settings) -> int:
    """Return the teacher's window: the spec's, else the backbone's native side."""
    return settings.teacher.window_px or known_sizes(settings.backbone).image_px


def smallest_side_px(settings: Settings) -> int:
    """Return the least that crops leave of a side: the spec's value, else the native side."""
    return settings.images.smallest_side_px or known_sizes(settings.backbone).image_px


def upsample(settings: Settings) -> int:
    """Return the factor r that windows' features are upsampled by before stitching."""
    if settings.teacher.upsample == "auto":
        return upsample_factor(known_sizes(settings.backbone).patch_px, settings.teacher.stride_px)
    return settings.teacher.upsample


def inference(settings: Settings, method: Method) -> Inference:
    """Return how a method reads an image when it is evaluated."""
    if method != "teacher":
        return SINGLE_PASS
    average = settings.evaluate.average
    return Inference(
        "sliding_window",
        window_px=window_px(settings),
        stride_px=settings.teacher.stride_px,
        average=average,
        upsample=upsample(settings) if average == "features" else None,
    )


def images_stage(settings: Settings, seed: int) -> Stage:
    """The drawn list of distillation images."""
    images, sizes = settings.images, known_sizes(settings.backbone)
    return Stage(
        "images",
        VERSIONS["images"],
        {
            "source": dataset_identity(images.source, "train"),
            **images.model_dump(
                mode="json", exclude={"source", "smallest_side_px"}, exclude_none=True
            ),
            "seed": seed,
            "patch_px": sizes.patch_px,
            "shortest_px": smallest_side_px(settings),
        },
        how={"source": images.source},
    )


def targets_stage(settings: Settings, seed: int) -> Stage:
    """The teacher's features on the distillation images, in half precision."""
    return Stage(
        "targets",
        VERSIONS["targets"],
        {
            "backbone": backbone_identity(settings.backbone),
            "window_px": window_px(settings),
            "stride_px": settings.teacher.stride_px,
            "upsample": upsample(settings),
            "dtype": "float16",
        },
        {"images": images_stage(settings, seed).fingerprint},
        how={"backbone": settings.backbone, "source": settings.images.source},
    )


def student_stages(settings: Settings, seed: int) -> list[Stage]:
    """The student and all that it is made from, in an order in which they can be made.

    Targets that are not kept are not a stage: the student computes them as it trains.
    """
    student = student_stage(settings, seed)
    if not student.inputs:
        return [student]
    kept = [targets_stage(settings, seed)] if settings.teacher.keep else []
    return [images_stage(settings, seed), *kept, student]


def student_stage(settings: Settings, seed: int) -> Stage:
    """The student's weights and training curve.

    Its `how` has what decides the targets: if they are not kept, the student computes them itself.
    """
    student = settings.student
    if student.checkpoint is not None:
        return imported_stage(settings.backbone, student)
    targets = targets_stage(settings, seed)
    return Stage(
        "student",
        VERSIONS["student"],
        {
            "backbone": backbone_identity(settings.backbone),
            **student.model_dump(mode="json", exclude={"checkpoint"}),
            "loss_version": registry.version("losses", student.loss),
            "seed": seed,
        },
        {
            "images": images_stage(settings, seed).fingerprint,
            "targets": targets.fingerprint,
        },
        how={
            "backbone": settings.backbone,
            "source": settings.images.source,
            "teacher": targets.settings,
            "keep": settings.teacher.keep,
        },
    )


def imported_stage(backbone: BackboneSpec, student: StudentSpec) -> Stage:
    """The weights of a student that was trained elsewhere."""
    return Stage(
        "student",
        VERSIONS["student"],
        {"backbone": backbone_identity(backbone), "checkpoint": checkpoint_digest(student)},
        how={"backbone": backbone, "checkpoint": student.checkpoint},
    )


def text_stage(settings: Settings, data: Labelled, protocol: dict[str, Any]) -> Stage:
    """The embedded class names of a data set; no student changes the text tower."""
    return Stage(
        "text",
        VERSIONS["text"],
        {
            "text_tower": backbones.text_identity(backbone_identity(settings.backbone)),
            "classes": data.classes,
            "templates": protocol["templates"],
        },
        how={"backbone": settings.backbone},
    )


def evaluate_stage(
    settings: Settings,
    seed: int,
    method: Method,
    data: Labelled,
    short_side_px: int,
    *,
    protocol: dict[str, Any],
) -> Stage:
    """Per-image pixel counts of one method on one data set at one resolution.

    `protocol` is as `plan.protocol.resolve` returns it for the backbone's read-out.
    """
    inputs = {"text": text_stage(settings, data, protocol).fingerprint}
    if method == "student":
        inputs["student"] = student_stage(settings, seed).fingerprint
    refiner = settings.evaluate.refiner
    return Stage(
        "evaluate",
        VERSIONS["evaluate"],
        {
            "backbone": backbone_identity(settings.backbone),
            "inference": asdict(inference(settings, method)),
            "refiner": [refiner, registry.version("refiners", refiner)],
            "dataset": data.identity,
            "classes": data.classes,
            "short_side_px": short_side_px,
            "protocol": protocol,
        },
        inputs,
        how={
            "backbone": settings.backbone,
            "dataset": data.spec,
            "image_hw": data.image_hw,
            "n_images": data.n_images,
        },
    )


def batch_key(stage: Stage) -> str:
    """Return a key that stages share if one pass over the images can serve them all.

    They have the same weights, images and protocol, and windows of one size, averaged in the same
    way: a window that two strides have in common is then encoded once.
    """
    inference = stage.settings["inference"]
    shared = {key: value for key, value in stage.settings.items() if key != "inference"}
    return digest([shared, stage.inputs, inference["window_px"], inference["average"]])


def cost_stage(
    settings: Settings, method: Method, image_hw: tuple[int, int], *, n_queries: int
) -> Stage:
    """GFLOPs, windows and parameters of reading one image: closed form, checked by a counter."""
    return Stage(
        "cost",
        VERSIONS["cost"],
        arm(settings, method, image_hw, n_queries=n_queries),
        how={"backbone": settings.backbone},
    )


def arm(
    settings: Settings, method: Method, image_hw: tuple[int, int], *, n_queries: int
) -> dict[str, Any]:
    """Return what decides the cost of reading one image, which excludes weights and positions."""
    sizes = asdict(known_sizes(settings.backbone))
    del sizes["position_embedding"]
    refiner = settings.evaluate.refiner
    return {
        "backbone": [
            registry.plugin("backbones", settings.backbone.name),
            registry.versions("backbones", settings.backbone.name),
        ],
        "sizes": sizes,
        "inference": asdict(inference(settings, method)),
        "refiner": [refiner, registry.version("refiners", refiner)],
        "image_hw": list(image_hw),
        "n_queries": n_queries,
        "precision": settings.evaluate.precision,
    }


def latency_stage(
    arms: list[dict[str, Any]],
    place: dict[str, Any],
    *,
    seconds: float,
    how: dict[str, BackboneSpec],
) -> Stage:
    """Interleaved timings of all arms of a sweep, in one session on one machine.

    `place` is the host, device, versions, threads and batch; `how` maps an arm's digest to a
    backbone that can be built.
    """
    by_digest = {digest(arm): arm for arm in arms}
    return Stage(
        "latency",
        VERSIONS["latency"],
        {"arms": dict(sorted(by_digest.items())), "place": place, "seconds": seconds},
        how=dict(how),
    )
