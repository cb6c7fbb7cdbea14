"""Procedural scenes with exact labels: a data set that needs no files."""

from typing import Any

from spar_bench.datasets.base import DatasetSettings, Image, Sample, Split
from spar_bench.errors import SpecError
from spar_bench.patchwork.classes import CLASSES

VERSION = 1

_IMAGE_HW = (256, 320)
_DEFAULT_COUNT = {"train": 1000, "val": 48}


class Dataset:
    """The scenes of one split; any number of them, drawn on demand."""

    def __init__(self, split: Split, settings: DatasetSettings) -> None:
        """Choose the split's seeds; nothing is drawn yet.

        Raises:
            SpecError: the settings give a folder, or class names that do not fit the labels.
        """
        settings.refuse_files("patchwork")
        if settings.path is not None:
            raise SpecError(
                "data set patchwork: path: must be left out, since its scenes are drawn, but got "
                f"{settings.path}; leave it out, or name the folder's own data set"
            )
        self.classes = settings.classes or CLASSES
        if len(self.classes) != len(CLASSES):
            raise SpecError(
                f"data set patchwork: classes: must name the {len(CLASSES)} classes of the scenes, "
                f"but got {len(self.classes)}; leave them out for the scenes' own names"
            )
        self.image_hw = _IMAGE_HW
        self._split = split
        self._count = _DEFAULT_COUNT[split] if settings.count is None else settings.count

    def __len__(self) -> int:
        """Return the number of scenes."""
        return self._count

    def identity(self) -> dict[str, Any]:
        """Return what decides the contents: split, number, size and class names."""
        return {
            "split": self._split,
            "count": self._count,
            "image_hw": list(self.image_hw),
            "classes": self.classes,
        }

    def image_sizes(self) -> dict[tuple[int, int], int]:
        """Return how many scenes have each size: all have one."""
        return {self.image_hw: self._count}

    def image(self, index: int) -> Image:
        """Return the image alone, `(H, W, 3)`."""
        return self.sample(index).image

    def sample(self, index: int) -> Sample:
        """Return name, image `(H, W, 3)` and mask `(H, W)`, without ignored pixels."""
        if not 0 <= index < self._count:
            raise IndexError(f"scene {index} of {self._count}")
        from spar_bench.patchwork.scenes import draw_scene, scene_seed  # late: it needs numpy

        image, mask = draw_scene(scene_seed(self._split, index), self.image_hw)
        return Sample(f"{self._split}/{index:05d}", image, mask)
