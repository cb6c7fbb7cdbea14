"""A published data set in its own tree of files, as its data file describes it.

The data file's `files:` says where the tree is looked for, which files are images and masks, and
what the masks' values mean (`spar-bench datasets show voc21` prints one):

    files:
      looked_for: [VOCdevkit/VOC2012]         # below `path:`, $SPAR_BENCH_DATA or data/
      val:
        images: "JPEGImages/{name}.jpg"       # {name} may hold folders
        names: ImageSets/Segmentation/val.txt # one a line; left out: every file of the pattern
        up_to: 25000                          # names that end in a number, this at most, in order
        n_images: 1449                        # as published
        masks:                                # the first that is there
          - {files: "SegmentationClass/{name}.png", labels: as_stored}

Labels are `as_stored`; or `reduce_zero`: 0 is ignored and any other value is one more than its
label; or a map from every value to its label. 255 is ignored.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from spar_bench import registry
from spar_bench.datasets.base import IGNORED, DatasetSettings, Split
from spar_bench.datasets.facts import Stated, read
from spar_bench.datasets.files import Entry, FileDataset, Found, LabelRule, Labels, names_below
from spar_bench.errors import DataError, NotReady, SparBenchError

VERSION = 1
NEEDS_DATA_FILE = True

FOLDER_VARIABLE = "SPAR_BENCH_DATA"
DEFAULT_FOLDER = "data"
_NAME = "{name}"


def _with_name(pattern: str) -> str:
    if pattern.count(_NAME) != 1 or Path(pattern).is_absolute():
        raise ValueError(f"must be a path in the tree with one {_NAME}")
    return pattern


Pattern = Annotated[str, AfterValidator(_with_name)]


class MasksSpec(Stated):
    """Masks of one kind."""

    files: Pattern
    labels: LabelRule = "as_stored"


class SplitSpec(Stated):
    """The files of one split."""

    images: Pattern
    names: str | None = None
    up_to: int | None = None
    n_images: int | None = Field(None, gt=0)
    masks: list[MasksSpec] = Field([])


class FilesSpec(Stated):
    """What a data file's `files:` says."""

    looked_for: list[str] = Field([])
    train: SplitSpec | None = None
    val: SplitSpec | None = None


Kind = tuple[str, Labels]


class Dataset(FileDataset):
    """The images of one split, in the order of its list of names, else of their names."""

    def _find(self, split: Split, settings: DatasetSettings) -> Found:
        wanted, problems = _wanted(split, settings), list[SparBenchError]()
        root = place(split, settings)
        masks = wanted.masks if split == "val" else []
        classes = (settings.classes or []) if masks else []
        kinds = [(kind.files, _labels(kind.labels, classes, settings)) for kind in masks]
        names = _names(root, wanted, settings, problems)
        entries = [
            entry
            for name in names
            if (entry := _entry(root, wanted, name, kinds, problems)) is not None
        ]
        if wanted.names is None:
            problems += _masks_alone(root, wanted.images, masks)
        if not names and not problems:
            raise NotReady(f"{root}: must hold {wanted.images}, but has none; {_get(settings)}")
        rules = [kind.model_dump(mode="json") for kind in masks] or None
        return Found(root, entries, classes, problems, rules, wanted.n_images)


def place(split: Split, settings: DatasetSettings) -> Path:
    """Return the folder of a data set's tree, told by the folder of the split's images.

    Raises:
        NotReady: it is in none of the places that it is looked for in.
        DataError: the data file makes no sense, or has no such split.
    """
    marker = _folder_of(_wanted(split, settings).images)
    places = list(_places(settings))
    for folder in places:
        if (folder / marker).is_dir():
            return folder
    shown = " or ".join(dict.fromkeys(str(folder) for folder in places))
    raise NotReady(
        f"data set {settings.name}: {f'{marker}/' if marker else 'its folder'} must be in {shown}, "
        f"but is not there; {_get(settings)}"
    )


def _places(settings: DatasetSettings) -> Iterator[Path]:
    looked_for = _described(settings).looked_for
    if settings.path is not None:
        given = Path(settings.path).expanduser()
        yield given
        yield from (given / folder for folder in looked_for)
        return
    configured = os.environ.get(FOLDER_VARIABLE)
    for above in [configured, DEFAULT_FOLDER]:
        if above:
            yield from (Path(above).expanduser() / folder for folder in looked_for)


def _get(settings: DatasetSettings) -> str:
    """Say where to get a data set."""
    source, license = settings.facts.source, settings.facts.license
    get = f"get it from {source} ({license}), and " if source else ""
    return f"{get}name its folder as `path:`, or the folder above as {FOLDER_VARIABLE}"


def _wanted(split: Split, settings: DatasetSettings) -> SplitSpec:
    described = _described(settings)
    wanted = described.train if split == "train" else described.val
    if wanted is None or (split == "val" and not (wanted.masks and settings.classes)):
        lack = f"{split} images" if wanted is None else "masks or no classes"
        use = "distil on" if split == "train" else "evaluate on"
        raise DataError(
            f"data set {settings.name}: must have what to {use}, but its data file has no {lack}; "
            "use another data set"
        )
    return wanted


def _described(settings: DatasetSettings) -> FilesSpec:
    file = registry.data_file("datasets", settings.name)
    return read(FilesSpec, settings.facts.files, f"{file}: files")


def _labels(rule: LabelRule, classes: list[list[str]], settings: DatasetSettings) -> Labels:
    if not isinstance(rule, str):
        wrong = [
            f"{value}: {label}"
            for value, label in rule.items()
            if not 0 <= value < 256 or not (0 <= label < len(classes) or label == IGNORED)
        ]
        if wrong:
            raise DataError(
                f"data set {settings.name}: labels: must map 0 to 255 to the {len(classes)} "
                f"classes or {IGNORED}, but has {wrong[0]}; correct its data file"
            )
    return Labels.of(rule, len(classes))


def _names(
    root: Path, wanted: SplitSpec, settings: DatasetSettings, problems: list[SparBenchError]
) -> list[str]:
    """Return what stands for {name} in each image, in order."""
    if wanted.names is None:
        names = list(_matching(root, wanted.images))
    else:
        names = _listed(root / wanted.names, settings, problems)
    if wanted.up_to is None:
        return names
    numbered = [(int(found[0]), name) for name in names if (found := re.search(r"\d+$", name))]
    return [name for number, name in sorted(numbered) if number <= wanted.up_to]


def _listed(path: Path, settings: DatasetSettings, problems: list[SparBenchError]) -> list[str]:
    """Read a list of names, one a line; each is taken once."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise NotReady(
            f"{path}: must list the images, one a line, but cannot be read ({error.strerror}); "
            f"{_get(settings)}"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be UTF-8 text, but is not ({error.reason})") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: must list the images, one a line, but is empty; get it anew")
    twice = {name: count for name, count in Counter(names).items() if count > 1}
    problems += [
        DataError(f"{path}: must list each image once, but has {name!r} {count} times; keep one")
        for name, count in twice.items()
    ]
    return list(dict.fromkeys(names))


def _entry(
    root: Path, wanted: SplitSpec, name: str, kinds: list[Kind], problems: list[SparBenchError]
) -> Entry | None:
    """Pair an image with its mask; what is missing is a problem, and there is no entry."""
    image = root / wanted.images.replace(_NAME, name)
    if wanted.names is not None and not image.is_file():
        problems.append(
            NotReady(
                f"{image}: must be there, for {wanted.names} lists it, but is not; get it anew"
            )
        )
        return None
    if not kinds:
        return Entry(image)
    masks = [(root / pattern.replace(_NAME, name), labels) for pattern, labels in kinds]
    for path, labels in masks:
        if path.is_file():
            return Entry(image, path, labels)
    problems.append(
        NotReady(
            f"{masks[0][0]}: must be there as the mask of {image.name}, but is not; get it anew"
        )
    )
    return None


def _masks_alone(root: Path, images: str, masks: list[MasksSpec]) -> Iterator[NotReady]:
    """Yield a problem for each mask whose image is missing."""
    for kind in masks:
        for name in _matching(root, kind.files):
            image = root / images.replace(_NAME, name)
            if not image.is_file():
                mask = kind.files.replace(_NAME, name)
                yield NotReady(
                    f"{image}: must be there, for {mask} is its mask, but is not; get it anew"
                )


def _folder_of(pattern: str) -> str:
    """Return the folder that all files of a pattern are below."""
    return pattern.partition(_NAME)[0].rpartition("/")[0]


def _matching(root: Path, pattern: str) -> Iterator[str]:
    """Yield what stands for {name} in the files of a pattern, sorted."""
    folder = _folder_of(pattern)
    before, _, after = pattern.removeprefix(f"{folder}/").partition(_NAME)
    for found in names_below(root / folder):
        if found.startswith(before) and found.endswith(after) and len(found) > len(before + after):
            yield found[len(before) : len(found) - len(after)]
