"""What a spec may well not mean, though it can be run; no torch."""

from collections.abc import Iterable, Iterator

from spar_bench.datasets.base import Split
from spar_bench.plan.drawing import rescaled_hw
from spar_bench.plan.inputs import declared_hw
from spar_bench.plan.stages import resized_hw, smallest_side_px, window_px
from spar_bench.spec.schema import DatasetSpec, Settings, SourceSpec


def remarks(points: Iterable[Settings]) -> list[str]:
    """Return a line for each window that holds all images whole, so that no stride moves it.

    Raises:
        NotReady: weights or data are missing.
        DataError: an image cannot be read.
    """
    sizes: dict[str, tuple[int, int]] = {}
    return list(dict.fromkeys(line for one in points for line in _whole(one, sizes)))


def _whole(settings: Settings, sizes: dict[str, tuple[int, int]]) -> Iterator[str]:
    window = window_px(settings)
    for what, images in _images(settings, sizes).items():
        height, width = max(images, key=max)
        if max(height, width) <= window:
            yield (
                f"teacher.window_px: {window} holds every {what} image whole (at most "
                f"{height}x{width} px), so that the teacher is a single pass at any stride"
            )


def _images(
    settings: Settings, sizes: dict[str, tuple[int, int]]
) -> dict[str, list[tuple[int, int]]]:
    """Return the sizes of the images that the teacher reads, by what they are read for."""
    methods, found = settings.evaluate.methods, dict[str, list[tuple[int, int]]]()
    if "teacher" in methods:
        found["evaluated"] = [
            resized_hw(_declared_hw(data, "val", sizes), short_side_px)
            for data in settings.evaluate.datasets
            for short_side_px in settings.evaluate.short_side_px
        ]
    if settings.distils:
        drawn_hw = rescaled_hw(
            _declared_hw(settings.images.source, "train", sizes),
            settings.images.short_side_px[1],
            long_side_ratio=settings.images.long_side_ratio,
            shortest_px=smallest_side_px(settings),
        )
        found["distilled"] = [drawn_hw]
    return found


def _declared_hw(
    spec: DatasetSpec | SourceSpec, split: Split, sizes: dict[str, tuple[int, int]]
) -> tuple[int, int]:
    key = f"{split} {spec.model_dump_json()}"
    if key not in sizes:
        sizes[key] = declared_hw(spec, split)
    return sizes[key]
