"""Which rows of a sweep a number of the paper is about, and what keeps them from being compared."""

import math
from collections.abc import Iterable, Iterator, Mapping

from spar_bench import registry
from spar_bench.inference import Resize
from spar_bench.plan.trials import PlannedRow, Trial
from spar_bench.protocol import declare
from spar_bench.published import MEAN, TIMED_HW, TIMED_IMAGE, Published, published
from spar_bench.results import Matched
from spar_bench.spec.schema import DatasetSpec, EvaluateSpec, Settings
from spar_bench.validation import Part

SOURCE, N_IMAGES, EXTENDED_PX = "sa1b", 25_000, 1024
"""What the paper's students learn from; in the extended range, short sides exceed the last."""
SIZE_TOLERANCE = 0.025
"""Relative difference of an image's effective side from that of a figure's axis."""
_BACKBONE = {"read_out": None, "position_embedding": None, "odd_sides": None}
_TEACHER = {"upsample": "auto"}
_TARGETS = {"normalise": False}
_IMAGES = {"smallest_side_px": 512, "crop": 0.5, "flip": 0.5}
_RANGE = {"short_side_px": (512, 1024), "long_side_ratio": 2.0}
_EXTENDED_RANGE = {"short_side_px": (512, 2560), "long_side_ratio": 1.0}
_STUDENT = {
    "optimiser": "adamw", "learning_rate": 2.0e-5, "weight_decay": 1.0e-4, "epochs": 10,
    "schedule": "constant", "accumulate": 2,
}  # fmt: skip
"""The paper's settings, by the part of a spec; a backbone without its own has the paper's."""


def matched(trials: Iterable[Trial], table: str) -> list[Matched]:
    """Return, for each number of a table and each group, the rows that it is about, if any."""
    groups = list({trial.group: trial for trial in reversed(list(trials))}.values())[::-1]
    numbers = published(table)
    means = [one.dataset for one in published("main_table") if one.dataset != MEAN]
    six = list(dict.fromkeys(means))
    return [
        Matched(
            number=number,
            group=trial.group,
            method=one.method,
            places=[(row.data.display_name, row.short_side_px) for row in rows],
            departures=list(dict.fromkeys(_departures(trial, rows, one))),
        )
        for number, one in enumerate(numbers)
        for trial in groups
        if _is_of(trial.settings, one) and (rows := _rows(trial, one, six))
    ]


def _is_of(settings: Settings, one: Published) -> bool:
    """Tell whether a point has the backbone, method and settings of a published number.

    Of a checkpoint in place of training, the spec's settings say how it was made.
    """
    same_backbone = settings.backbone.name == one.backbone
    refiner = registry.plugin("refiners", settings.evaluate.refiner.name)
    if not same_backbone or one.method not in settings.evaluate.methods or refiner != one.refiner:
        return False
    if one.method == "pretrained":
        return True
    if settings.teacher.stride_px != one.stride_px:
        return False
    if one.method == "teacher":
        return True
    images = "sa1b_25k_extended" if _is_extended(settings) else "sa1b_25k"
    is_trained_part = one.trainable in (None, settings.student.trainable)
    return is_trained_part and one.images in (None, images)


def _is_extended(settings: Settings) -> bool:
    return settings.images.short_side_px[1] > EXTENDED_PX


def _rows(trial: Trial, one: Published, six: list[str]) -> list[PlannedRow]:
    """Return the rows of a point that a number is about, one a data set; [] if one is lacking."""
    rows = [row for row in trial.rows if row.method == one.method and _is_as_large(row, one)]
    if one.dataset == TIMED_IMAGE:
        return [row for row in rows if row.image_hw == TIMED_HW][:1]
    wanted = six if one.dataset == MEAN else [one.dataset]
    found = dict[str, PlannedRow]()
    for row in rows:
        name = row.data.spec.name
        is_own = row.short_side_px == row.data.facts.short_side_px
        if name in wanted and (name not in found or is_own):
            found[name] = row
    return [found[name] for name in wanted] if len(found) == len(wanted) else []


def _is_as_large(row: PlannedRow, one: Published) -> bool:
    if one.effective_px is None:
        return True
    own_px = math.sqrt(row.image_hw[0] * row.image_hw[1])
    return abs(own_px / one.effective_px - 1) <= SIZE_TOLERANCE


def _departures(trial: Trial, rows: list[PlannedRow], one: Published) -> Iterator[str]:
    """Yield in what rows differ from the paper's, as far as it affects the number."""
    if one.quantity != "miou_percent":
        return
    settings, point = trial.settings, trial.point
    if point.has_random_weights:
        yield "some weights are random"
    yield from _others(settings.backbone, _BACKBONE, "backbone")
    for row in rows:
        yield from _of_data(row, one)
    is_trained = one.method == "student" and settings.student.checkpoint is None
    if one.method == "teacher" or is_trained:
        native_px = point.backbone.sizes.image_px
        if point.window_px != native_px:
            yield f"windows of {point.window_px} px, not {native_px}"
        yield from _others(settings.teacher, _TEACHER, "teacher")
    if is_trained:
        yield from _of_student(settings)


def _of_data(row: PlannedRow, one: Published) -> Iterator[str]:
    data, facts = row.data, row.data.facts
    in_full = facts.files.get("val", {}).get("n_images")
    if in_full is not None and data.n_images != in_full:
        yield f"{data.n_images} of {in_full} images of {data.display_name}"
    if one.effective_px is None and row.short_side_px != facts.short_side_px:
        yield f"{data.display_name} at {row.short_side_px} px, not {facts.short_side_px}"
    usual = declare(
        EvaluateSpec(),
        DatasetSpec(name=data.spec.name),
        facts,
        classes=facts.classes or [],
        resize=Resize(row.short_side_px, row.protocol.long_side_px),
    )
    own = row.protocol.model_dump()
    others = [key for key, value in usual.model_dump().items() if own[key] != value]
    if others:
        yield f"another {', '.join(others)} on {data.display_name}"


def _of_student(settings: Settings) -> Iterator[str]:
    images, student = settings.images, settings.student
    if (images.source.name, images.count) != (SOURCE, N_IMAGES):
        own = f"{images.count:,} images of {images.source.name}"
        yield f"distilled on {own}, not {N_IMAGES:,} of {SOURCE}"
    if student.loss.name != "mse":
        yield f"the loss {student.loss.name}, not mse"
    size_range = _EXTENDED_RANGE if _is_extended(settings) else _RANGE
    yield from _others(images, _IMAGES | size_range, "images")
    yield from _others(settings.teacher, _TARGETS, "teacher")
    yield from _others(student, _STUDENT, "student")


def _others(part: Part, papers: Mapping[str, object], name: str) -> Iterator[str]:
    """Yield which settings of a part of the spec are others than the paper's, if any."""
    others = [key for key, value in papers.items() if getattr(part, key) != value]
    if others:
        yield f"another {', '.join(others)} of the {name}"
