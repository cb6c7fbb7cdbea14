"""Checks that need several values: settings against the sizes of their backbone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spar_bench.errors import SparBenchError
from spar_bench.spec.schema import BackboneSpec, Settings
from spar_bench.spec.trainable import parse_trainable

if TYPE_CHECKING:
    from spar_bench.backbones import Sizes


@dataclass(frozen=True)
class Odds:
    """Incompatible values: their dotted keys, with the one to name first, and the reason."""

    keys: tuple[str, ...]
    text: str


class Checker:
    """Checks settings; looks each backbone's sizes up once."""

    def __init__(self) -> None:
        self._sizes: dict[str, Sizes | None] = {}

    def check(self, settings: Settings, swept: Iterable[str] = ()) -> Iterator[Odds]:
        """Yield the conflicts in validated settings, some of whose keys are swept."""
        sizes = self._stated_sizes(settings.backbone)
        if sizes is not None:
            yield from _backbone(settings, sizes)
            yield from _teacher(settings, sizes)
            yield from _student(settings, sizes)
            yield from _resolutions(settings, sizes)
        yield from _imported(settings, swept)
        yield from _labels(settings)
        yield from _columns(settings)

    def _stated_sizes(self, backbone: BackboneSpec) -> "Sizes | None":
        from spar_bench.backbones import stated_sizes  # which itself imports the schema

        key = backbone.model_dump_json()
        if key not in self._sizes:
            try:
                self._sizes[key] = stated_sizes(backbone)
            except SparBenchError:  # weights may be added later: `check --ready` needs them
                self._sizes[key] = None
        return self._sizes[key]


def is_training(key: str) -> bool:
    """Tell whether a dotted key affects a student's training, which a checkpoint replaces."""
    return key.startswith(("student.", "images.")) and key != "student.checkpoint"


def _backbone(settings: Settings, sizes: "Sizes") -> Iterator[Odds]:
    from spar_bench.backbones import not_offered  # which itself imports the schema

    for key, text in not_offered(settings.backbone, sizes):
        yield Odds((f"backbone.{key}", "backbone.name"), text)


def _teacher(settings: Settings, sizes: "Sizes") -> Iterator[Odds]:
    teacher, patch_px = settings.teacher, sizes.patch_px
    window_px = teacher.window_px or sizes.image_px
    named = ("teacher.stride_px", "teacher.window_px", "backbone.name", "backbone.path")
    if teacher.stride_px > window_px:
        yield Odds(
            named,
            f"must not exceed window_px ({window_px}, the backbone's), but got "
            f"{teacher.stride_px}: pixels between windows would have no teacher feature; "
            f"use {window_px} or less",
        )
        return
    if window_px % patch_px:
        near = max(patch_px, round(window_px / patch_px) * patch_px)
        yield Odds(
            ("teacher.window_px", "backbone.name", "backbone.path"),
            f"must be a multiple of the backbone's patch ({patch_px}), but got {window_px}; "
            f"use {near}",
        )
    r = teacher.upsample
    if r != "auto" and (patch_px % r or teacher.stride_px % (patch_px // r)):
        fitting = [
            n for n in range(1, patch_px + 1)
            if patch_px % n == 0 and teacher.stride_px % (patch_px // n) == 0
        ]  # fmt: skip
        yield Odds(
            ("teacher.upsample", *named),
            f"must divide the patch ({patch_px}) into cells that divide stride_px "
            f"({teacher.stride_px}), but got {r}; use auto, or one of {fitting}",
        )


def _student(settings: Settings, sizes: "Sizes") -> Iterator[Odds]:
    trainable = settings.student.trainable
    if parse_trainable(trainable).n_blocks > sizes.depth:
        yield Odds(
            ("student.trainable", "backbone.name", "backbone.path"),
            f"must not count more blocks than the backbone has ({sizes.depth}), "
            f"but got {trainable!r}; count fewer, or use all",
        )
    if trainable == "position_embedding" and sizes.position_embedding == "rope":
        yield Odds(
            ("student.trainable", "backbone.name", "backbone.path"),
            "must be a part that has weights, but got 'position_embedding': this backbone's "
            "positions are rotary and have none; use patch_embedding, last_2_blocks or all",
        )


def _imported(settings: Settings, swept: Iterable[str]) -> Iterator[Odds]:
    path = settings.student.checkpoint
    for key in filter(is_training, swept if path is not None else []):
        yield Odds(
            ("student.checkpoint",),
            f"must be left out where {key} is swept, since nothing is trained with it, but got "
            f"{path!r}; drop one",
        )


def _resolutions(settings: Settings, sizes: "Sizes") -> Iterator[Odds]:
    numbers = [one for one in settings.evaluate.short_side_px if one != "own"]
    lowest = {
        "images.short_side_px": settings.images.short_side_px[0],
        "evaluate.short_side_px": min(numbers, default=sizes.patch_px),
    }
    for key, value in lowest.items():
        if value < sizes.patch_px:
            yield Odds(
                (key, "backbone.name", "backbone.path"),
                f"must be at least the backbone's patch ({sizes.patch_px}), but got {value}; "
                "raise it",
            )


def _labels(settings: Settings) -> Iterator[Odds]:
    from spar_bench.datasets import label  # which itself imports the schema

    labels = [label(dataset) for dataset in settings.evaluate.datasets]
    twice = next((found for i, found in enumerate(labels) if found in labels[:i]), None)
    if twice is not None:
        yield Odds(
            ("evaluate.datasets",),
            f"must each have a unique name, but got {twice!r} twice; add label: to one",
        )


def _columns(settings: Settings) -> Iterator[Odds]:
    """Yield numbers that would share a table column with a data set's own resolution."""
    from spar_bench.datasets import facts, label  # which itself imports the schema

    asked = settings.evaluate.short_side_px
    for dataset in settings.evaluate.datasets if "own" in asked else []:
        try:
            own = facts(dataset)
        except SparBenchError:  # reported where the data set is looked for
            continue
        if own.long_side_px is not None and own.short_side_px in asked:
            yield Odds(
                ("evaluate.short_side_px",),
                f"must differ from the short side of {label(dataset)}'s own rule where own is also "
                f"given, but got {own.short_side_px}, which has no cap of {own.long_side_px} "
                "px; drop one",
            )
