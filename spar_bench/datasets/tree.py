"""A published data set in its own tree of files, as its data file describes it.

The data file's `files:` says where the tree is looked for, which files are images and masks, and
what the masks' values mean (`spar-bench datasets show voc21` prints one):

    files:
      looked_for: [VOCdevkit/VOC2012]         # below `path:`, $SPAR_BENCH_DATA or data/
      val:
        images: "JPEGImages/{name}.jpg"       # {name} may hold folders
        names: ImageSets/Segmentation/val.txt # one per line; left out: every matching file
        numbered: sa_                         # only files named this plus a number, in order
        up_to: 25000                          # and only up to this number
        n_images: 1449                        # as published
        masks:                                # the first that exists
          - {files: "SegmentationClass/{name}.png", labels: as_stored}

Labels are `as_stored`; or `reduce_zero`: 0 is ignored and any other value is one more than its
label; or a map from every value to its label. 255 is ignored, unless a map says otherwise.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from spar_bench import registry
from spar_bench.datasets._facts import read
from spar_bench.datasets._files import (
    Entry,
    FileDataset,
    Found,
    LabelRule,
    Labels,
    absent,
    names_below,
)
from spar_bench.datasets.base import IGNORED, DatasetSettings, Split
from spar_bench.errors import DataError, DataFileError, NotReady, SparBenchError
from spar_bench.validation import Part, mistake, show
from spar_bench.values import Positive

VERSION = 1
NEEDS_DATA_FILE = True

FOLDER_VARIABLE = "SPAR_BENCH_DATA"
DEFAULT_FOLDER = "data"
_NAME = "{name}"


def _with_name(pattern: str) -> str:
    if pattern.count(_NAME) != 1 or Path(pattern).is_absolute():
        text = f"must be a path in the tree with one {_NAME}, but got {show(pattern)}; correct it"
        raise mistake(text)
    return pattern


def _rule(value: Any) -> Any:
    """Refuse what is not a label rule, as one mistake: a union would report one per member."""
    if value in ("as_stored", "reduce_zero"):
        return value
    if not isinstance(value, dict) or not value:
        text = "must be as_stored, reduce_zero or a map from every value to its label, but got "
        raise mistake(f"{text}{show(value)}; correct it")
    for pair in value.items():
        if not all(type(number) is int for number in pair):  # also refuses true, which would be 1
            got = f"{pair[0]!r}: {pair[1]!r}"
            raise mistake(f"must map whole numbers to labels, but got {got}; correct it")
    return value


Pattern = Annotated[str, AfterValidator(_with_name)]
Rule = Annotated[LabelRule, BeforeValidator(_rule)]


class MasksSpec(Part):
    """Masks of one kind."""

    files: Pattern
    labels: Rule = "as_stored"


class SplitSpec(Part):
    """The files of one split."""

    images: Pattern
    names: str | None = None
    numbered: str | None = None
    up_to: Positive | None = None
    n_images: Positive | None = None
    masks: list[MasksSpec] = Field([])


class FilesSpec(Part):
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
        masks = wanted.masks if settings.has_labels(split) else []
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
    """Return the folder of a data set's tree, recognised by the folder of the split's images.

    Raises:
        NotReady: it is in none of the places where it is looked for.
        DataFileError: the data file is invalid, or has no such split.
    """
    looked_for = _described(settings).looked_for
    marker = _folder_of(_wanted(split, settings).images)
    if settings.path is not None:
        given = Path(os.path.expanduser(settings.path))
        # The parent folder may hold other sets, whose files would match a pattern without a folder.
        places = [*(given / folder for folder in looked_for), given]
        shown = f"{given}, or below it in {' or '.join(looked_for)}"
    else:
        above = [os.environ.get(FOLDER_VARIABLE), DEFAULT_FOLDER]
        folders = [Path(os.path.expanduser(folder)) for folder in above if folder]
        places = [folder / below for folder in folders for below in looked_for]
        shown = f"{' or '.join(looked_for)} below {' or '.join(map(str, folders))}"
    for folder in places:
        if (folder / marker).is_dir():
            return folder
    raise NotReady(
        f"data set {settings.name}: {f'{marker}/' if marker else 'its folder'} must be in {shown}, "
        f"but is not there; {_get(settings)}"
    )


def _get(settings: DatasetSettings) -> str:
    """Say where to get a data set."""
    source, license = settings.facts.source, settings.facts.license
    get = f"get it from {source} ({license}), and " if source else ""
    return f"{get}give its folder as `path:`, or the parent folder as {FOLDER_VARIABLE}"


def _wanted(split: Split, settings: DatasetSettings) -> SplitSpec:
    described = _described(settings)
    wanted = described.train if split == "train" else described.val
    if split == "train" and settings.labelled and not (wanted and wanted.masks):
        raise settings.without_labels("none in its data file", "use another data set")
    if wanted is None or (split == "val" and not (wanted.masks and settings.classes)):
        lack = f"{split} images" if wanted is None else "masks or no classes"
        use = "distil on" if split == "train" else "evaluate on"
        raise DataFileError(
            f"data set {settings.name}: must have data to {use}, but its data file has "
            f"no {lack}; use another data set"
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
            raise DataFileError(
                f"data set {settings.name}: labels: must map 0 to 255 to the {len(classes)} "
                f"classes or {IGNORED}, but has {wrong[0]}; correct its data file"
            )
    return Labels.of(rule, len(classes))


def _names(
    root: Path, wanted: SplitSpec, settings: DatasetSettings, problems: list[SparBenchError]
) -> list[str]:
    """Return the value of {name} for each image, in order."""
    if wanted.names is not None:
        return _in_order(_listed(root / wanted.names, settings, problems), wanted)
    names, otherwise = _matching(root, wanted.images)
    ending = Path(wanted.images).suffix
    problems += [
        DataError(
            f"{otherwise[name]}: must end in {ending}, as {wanted.images} says, but ends in "
            f"{otherwise[name].suffix}; rename it, or remove it"
        )
        for name in _in_order(otherwise, wanted)
    ]
    return _in_order(names, wanted)


def _in_order(names: Iterable[str], wanted: SplitSpec) -> list[str]:
    """Return the wanted names, in the order of their numbers if they have numbers."""
    if wanted.numbered is None and wanted.up_to is None:
        return list(names)
    start = ".*?" if wanted.numbered is None else re.escape(wanted.numbered)
    found = [(re.fullmatch(rf"{start}(\d+)", name.rpartition("/")[2]), name) for name in names]
    numbered = sorted((int(match[1]), name) for match, name in found if match)
    return [name for number, name in numbered if wanted.up_to is None or number <= wanted.up_to]


def _listed(path: Path, settings: DatasetSettings, problems: list[SparBenchError]) -> list[str]:
    """Read a list of names, one per line; each is used once."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise NotReady(
            f"{path}: must list the images, one per line, but cannot be read ({error.strerror}); "
            f"{_get(settings)}"
        ) from error
    except UnicodeDecodeError as error:
        reason = f"{path}: must be UTF-8 text, but is not ({error.reason}); save it as UTF-8"
        raise DataError(reason) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: must list the images, one per line, but is empty; get it again")
    twice = {name: count for name, count in Counter(names).items() if count > 1}
    problems += [
        DataError(f"{path}: must list each image once, but has {name!r} {count} times; keep one")
        for name, count in twice.items()
    ]
    return list(dict.fromkeys(names))


def _entry(
    root: Path, wanted: SplitSpec, name: str, kinds: list[Kind], problems: list[SparBenchError]
) -> Entry | None:
    """Pair an image with its mask; if one is missing, report a problem and return no entry."""
    image = root / wanted.images.replace(_NAME, name)
    if wanted.names is not None and not image.is_file():
        problems.append(absent(image, f"must exist, for {wanted.names} lists it"))
        return None
    if not kinds:
        return Entry(image)
    masks = [(root / pattern.replace(_NAME, name), labels) for pattern, labels in kinds]
    for path, labels in masks:
        if path.is_file():
            return Entry(image, path, labels)
    problems.append(absent(masks[0][0], f"must exist as the mask of {image.name}"))
    return None


def _masks_alone(root: Path, images: str, masks: list[MasksSpec]) -> Iterator[NotReady]:
    """Yield a problem for each mask whose image is missing."""
    for kind in masks:
        names, otherwise = _matching(root, kind.files)
        for name in [*names, *otherwise]:
            image = root / images.replace(_NAME, name)
            if not image.is_file():
                mask = kind.files.replace(_NAME, name)
                yield absent(image, f"must exist, for {mask} is its mask")


def _folder_of(pattern: str) -> str:
    """Return the folder that contains all files of a pattern."""
    return pattern.partition(_NAME)[0].rpartition("/")[0]


def _matching(root: Path, pattern: str) -> tuple[list[str], dict[str, Path]]:
    """Return the values of {name} in the files that match a pattern, sorted.

    Also return, with their files, those that match except for the ending's spelling: JPG, jpeg.
    """
    folder = _folder_of(pattern)
    before, _, after = pattern.removeprefix(f"{folder}/").partition(_NAME)
    rest, dot, ending = after.rpartition(".")
    spelt = "jpe?g" if ending.lower() in ("jpg", "jpeg") else re.escape(ending)
    fitting = re.compile(rf"{re.escape(before)}(.+){re.escape(rest + dot)}(?i:{spelt})", re.DOTALL)
    names, otherwise = list[str](), dict[str, Path]()
    for found in names_below(root / folder):
        match = fitting.fullmatch(found)
        if match and found.endswith(after):
            names.append(match[1])
        elif match:
            otherwise[match[1]] = root / folder / found
    return names, otherwise
