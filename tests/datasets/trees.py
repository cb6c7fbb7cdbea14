"""Miniature copies of the published data sets, files laid out and encoded as in the real ones.

`make("voc21", folder, n=4)` writes one below a folder and returns the root of its tree, which is
what `path:` takes. Images are noise, not square, and each has its own size; masks are blocks of
values that the real ones hold, including ignored ones.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spar_bench import registry
from spar_bench.datasets.base import Dataset, Split
from spar_bench.resolve import open_dataset
from spar_bench.spec.schema import DatasetSpec

Pixels = NDArray[np.uint8]
HW = (24, 36)
"""Size of the first image; each further one is 2 px higher."""

CITYSCAPES_TRAIN_IDS = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255] + [
    *range(6, 16), 255, 255, 16, 17, 18]  # fmt: skip
"""Train id of each raw label id, typed by hand from the public table."""


def make(name: str, folder: Path, *, n: int = 4, hw: tuple[int, int] = HW) -> Path:
    """Write the tree that a built-in data set reads, `n` images per split; return the root."""
    return MAKERS[name](folder, n=n, hw=hw)


def read(split: Split, name: str, path: Path, **settings: Any) -> Dataset:
    """Open a labelled data set at the root of its tree."""
    return open_dataset(DatasetSpec(name=name, path=str(path), **settings), split)


def edited(name: str, path: Path, old: str, new: str) -> Path:
    """Write a data set's data file with a change, as a user would."""
    stated = registry.data_file("datasets", name)
    assert stated is not None
    text = stated.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def make_voc(folder: Path, *, n: int = 4, hw: tuple[int, int] = HW) -> Path:
    """Write VOCdevkit/VOC2012: palette masks with 255 between objects, lists, unlisted images."""
    root = folder / "VOCdevkit" / "VOC2012"
    values = [0, *range(1, 21), 255]
    for path, stored in write_listed(root, "", values, years=(2007, 2008), n=n, hw=hw):
        stored[:, ::9] = 255  # borders
        write_palette(path, stored)
    write_photograph(root / "JPEGImages" / "2012_004331.jpg", hw, seed=1)  # for detection only
    return root


def make_context(folder: Path, *, n: int = 4, hw: tuple[int, int] = HW) -> Path:
    """Write VOCdevkit/VOC2010 as converted by MMSegmentation: masks of 0 to 59 without palette."""
    root = folder / "VOCdevkit" / "VOC2010"
    for path, stored in write_listed(root, "Context", range(60), years=(2008, 2009), n=n, hw=hw):
        write_grey(path, stored)
    return root


def write_listed(
    root: Path,
    task: str,
    values: Sequence[int],
    *,
    years: tuple[int, int],
    n: int,
    hw: tuple[int, int],
) -> Iterator[tuple[Path, Pixels]]:
    """Write a VOC's lists and images, of `train` and `val` by year; yield each mask to be written.

    A task's lists are in ImageSets/Segmentation{task}, its masks in SegmentationClass{task}.
    """
    for split, year in zip(("train", "val"), years, strict=True):
        names = [f"{year}_{index:06d}" for index in range(n)]
        write_list(root / "ImageSets" / f"Segmentation{task}" / f"{split}.txt", names)
        for index, name in enumerate(names):
            shape = (hw[0] + 2 * index, hw[1])
            write_photograph(root / "JPEGImages" / f"{name}.jpg", shape, seed=year + index)
            mask = root / f"SegmentationClass{task}" / f"{name}.png"
            yield mask, blocks(shape, values, seed=index)


def make_ade20k(folder: Path, *, n: int = 4, hw: tuple[int, int] = HW) -> Path:
    """Write ADEChallengeData2016: masks of 0, which is other, to 150."""
    root = folder / "ADEChallengeData2016"
    for split, short in (("training", "train"), ("validation", "val")):
        for index in range(n):
            name, shape = f"ADE_{short}_{index + 1:08d}", (hw[0] + 2 * index, hw[1])
            write_photograph(root / "images" / split / f"{name}.jpg", shape, seed=len(name) + index)
            stored = blocks(shape, range(151), seed=index)
            write_grey(root / "annotations" / split / f"{name}.png", stored)
    return root


def make_cityscapes(folder: Path, *, n: int = 4, hw: tuple[int, int] = HW) -> Path:
    """Write cityscapes: raw label ids of 0 to 33, and the other files beside them, two cities."""
    root = folder / "cityscapes"
    for split, cities in (("train", ["aachen", "zurich"]), ("val", ["frankfurt", "lindau"])):
        for index in range(n):
            city, shape = cities[index % 2], (hw[0] + 2 * index, hw[1])
            stem = f"{city}/{city}_000000_{index:06d}"
            image = root / "leftImg8bit" / split / f"{stem}_leftImg8bit.png"
            write_photograph(image, shape, seed=len(split) * 10 + index)
            masks = root / "gtFine" / split
            write_grey(masks / f"{stem}_gtFine_labelIds.png", blocks(shape, range(34), seed=index))
            write_photograph(masks / f"{stem}_gtFine_color.png", shape, seed=index)
            (masks / f"{stem}_gtFine_polygons.json").write_text("{}")
    return root


def make_sa1b(folder: Path, *, n: int = 4, hw: tuple[int, int] = HW) -> Path:
    """Write SA-1B: ids 8, 9, 10, ..., one above 25000, and a JSON beside each."""
    root = folder / "SA-1B"
    for index, number in enumerate([*range(8, 8 + n), 25001]):
        write_photograph(root / f"sa_{number}.jpg", (hw[0] + 2 * index, hw[1]), seed=number)
        (root / f"sa_{number}.json").write_text(json.dumps({"annotations": []}))
    return root


MAKERS: dict[str, Callable[..., Path]] = {
    "voc21": make_voc,
    "voc20": make_voc,
    "context60": make_context,
    "context59": make_context,
    "ade20k": make_ade20k,
    "cityscapes": make_cityscapes,
    "sa1b": make_sa1b,
}
LABELLED = [name for name in MAKERS if name != "sa1b"]


def blocks(hw: tuple[int, int], values: Sequence[int], *, seed: int) -> Pixels:
    """Return `(H, W)` of 4 x 6 px blocks, each of a value drawn from those given."""
    generator = np.random.default_rng(seed)
    drawn = generator.choice(np.array(values, np.uint8), (-(-hw[0] // 4), -(-hw[1] // 6)))
    return drawn.repeat(4, axis=0).repeat(6, axis=1)[: hw[0], : hw[1]].copy()


def write_photograph(path: Path, hw: tuple[int, int], *, seed: int) -> None:
    """Write noise as a JPEG or PNG, by the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_grey(path: Path, stored: Pixels) -> None:
    """Write values `(H, W)` as a grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stored).save(path)


def write_palette(path: Path, stored: Pixels) -> None:
    """Write values `(H, W)` as a PNG with VOC's palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(stored)
    picture.putpalette([channel for value in range(256) for channel in voc_colour(value)])
    picture.save(path)


def voc_colour(value: int) -> tuple[int, int, int]:
    """Return VOC's colour of a value: its bits dealt to red, green and blue, high bits first."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (value >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


def write_list(path: Path, names: Sequence[str]) -> None:
    """Write names, one per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))
