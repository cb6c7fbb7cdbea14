"""What a spec may well not mean, though it can be run; no torch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from spar_bench import datasets
from spar_bench.datasets.base import Split
from spar_bench.datasets.facts import Facts
from spar_bench.plan.drawing import rescaled_hw
from spar_bench.plan.inputs import declared_hw
from spar_bench.plan.protocol import resizes
from spar_bench.plan.stages import smallest_side_px, window_px
from spar_bench.spec.schema import DatasetSpec, Settings, SourceSpec


def remarks(points: Iterable[Settings]) -> list[str]:
    """Return a line for each window that holds all images whole, so that no stride moves it.

    Raises:
        NotReady: weights or data are missing.
        DataError: an image cannot be read.
    """
    known = _Known()
    return list(dict.fromkeys(line for one in points for line in _whole(one, known)))


@dataclass
class _Known:
    """What is known of data sets, each looked at once."""

    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)

    def hw(self, spec: DatasetSpec | SourceSpec, split: Split) -> tuple[int, int]:
        key = f"{split} {spec.model_dump_json()}"
        if key not in self.sizes:
            self.sizes[key] = declared_hw(spec, split)
        return self.sizes[key]

    def own(self, spec: DatasetSpec) -> Facts:
        if spec.name not in self.facts:
            self.facts[spec.name] = datasets.facts(spec)
        return self.facts[spec.name]


def _whole(settings: Settings, known: _Known) -> Iterator[str]:
    window = window_px(settings)
    for what, images in _images(settings, known).items():
        height, width = max(images, key=max)
        if max(height, width) <= window:
            yield (
                f"teacher.window_px: {window} holds every {what} image whole (at most "
                f"{height}x{width} px), so that the teacher is a single pass at any stride"
            )


def _images(settings: Settings, known: _Known) -> dict[str, list[tuple[int, int]]]:
    """Return the sizes of the images that the teacher reads, by what they are read for."""
    methods, found = settings.evaluate.methods, dict[str, list[tuple[int, int]]]()
    if "teacher" in methods:
        found["evaluated"] = [
            resize.of(known.hw(data, "val"))
            for data in settings.evaluate.datasets
            for resize in resizes(settings.evaluate, known.own(data))
        ]
    if settings.distils:
        drawn_hw = rescaled_hw(
            known.hw(settings.images.source, "train"),
            settings.images.short_side_px[1],
            long_side_ratio=settings.images.long_side_ratio,
            shortest_px=smallest_side_px(settings),
        )
        found["distilled"] = [drawn_hw]
    return found
