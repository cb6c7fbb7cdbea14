"""Which rows of a sweep a number of the paper is about, and what keeps them from being compared."""

import math
from collections.abc import Iterable, Iterator

from spar_bench import registry
from spar_bench.inference import Resize
from spar_bench.plan.trials import PlannedRow, Trial
from spar_bench.protocol import declare
from spar_bench.published import MEAN, TIMED_HW, TIMED_IMAGE, Published, published
from spar_bench.results import Matched
from spar_bench.spec.schema import DatasetSpec, EvaluateSpec, Settings

SOURCE, N_IMAGES, EXTENDED_PX = "sa1b", 25_000, 1024
"""What the paper's students learn from; in the extended range, short sides exceed the last."""
SIZE_TOLERANCE = 0.025
"""Relative difference of an image's effective side from that of a figure's axis."""
_RECIPE = {
    "optimiser": "adamw", "learning_rate": 2.0e-5, "weight_decay": 1.0e-4, "epochs": 10,
    "schedule": "constant", "accumulate": 2,
}  # fmt: skip


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
    is_extended = settings.images.short_side_px[1] > EXTENDED_PX
    return one.trainable in (None, settings.student.trainable) and one.images in (
        None,
        "sa1b_25k_extended" if is_extended else "sa1b_25k",
    )


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
    for row in rows:
        yield from _of_data(row, one)
    if one.method != "pretrained" and settings.student.checkpoint is None:
        native_px = point.backbone.sizes.image_px
        if point.window_px != native_px:
            yield f"windows of {point.window_px} px, not {native_px}"
    if one.method == "student" and settings.student.checkpoint is None:
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
    others = [key for key, value in _RECIPE.items() if getattr(student, key) != value]
    if others:
        yield f"another {', '.join(others)} of the student"
