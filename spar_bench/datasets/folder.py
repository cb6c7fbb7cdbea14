"""A user's own folder of images: any photographs to distil on, labelled ones to evaluate on.

    <path>/train_images/   distillation images; else images/; else every image below <path>
    <path>/train_masks/    their labels, which only a linear probe learns from
    <path>/val_images/     validation images, with val_masks/; else images/ with masks/
    <path>/val_masks/      index PNG of the same name; 255 is ignored
    <path>/classes.txt     one class per line, synonyms after commas, line 0 is label 0

Sub-folders are read too. In classes.txt blank lines and lines that start with # are skipped.
"""

import os
from pathlib import Path

from spar_bench.datasets._files import (
    ENDINGS,
    Entry,
    FileDataset,
    Found,
    Labels,
    files_below,
)
from spar_bench.datasets.base import IGNORED, DatasetSettings, Split
from spar_bench.errors import DataError, NotReady, SparBenchError

VERSION = 1

_MASK_ENDINGS = frozenset({".png"})
_LAYOUTS = [("val_images", "val_masks"), ("images", "masks")]
_TRAINING = ("train_images", "train_masks")


class Dataset(FileDataset):
    """The images of one split, in the order of their names."""

    def _find(self, split: Split, settings: DatasetSettings) -> Found:
        settings.refuse_files("folder")
        root, problems = _root(settings.path), list[SparBenchError]()
        if not settings.has_labels(split):
            return Found(
                root, [Entry(path) for path in _train_images(root, problems)], [], problems
            )
        classes = settings.classes or _read_classes(root / "classes.txt")
        labels = Labels.of("as_stored", len(classes))
        if split == "val":
            pairs = _labelled_images(root, problems)
        else:
            pairs = _labelled_training(root, settings, problems)
        return Found(root, [Entry(*pair, labels) for pair in pairs], classes, problems)


def _root(path: str | None) -> Path:
    if path is None:
        raise NotReady("data set folder: path must name a folder, but is not given; add `path:`")
    root = Path(os.path.expanduser(path))
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise NotReady(f"{root}: must be a folder of images, but {found}; correct `path:`")
    return root


def _train_images(root: Path, problems: list[SparBenchError]) -> list[Path]:
    """List distillation images; a folder without our layout may hold other files too."""
    for name in ("train_images", "images"):
        if (root / name).is_dir():
            return _listed(root / name, ENDINGS, problems)
    for name in ("val_images", "val_masks", "train_masks", "masks"):
        if (root / name).is_dir():  # its files may be masks, not photographs
            raise NotReady(
                f"{root}: must have train_images/ to distil on, but has {name}/ instead; add "
                "it, or name a folder that holds nothing but photographs"
            )
    found = [path for path in files_below(root) if path.suffix.lower() in ENDINGS]
    return _not_empty(found, root, ENDINGS)


def _labelled_images(root: Path, problems: list[SparBenchError]) -> list[tuple[Path, Path]]:
    """Pair validation images with the masks of the same name, sorted by name."""
    for images, masks in _LAYOUTS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return _paired(root / images, root / masks, problems)
    raise NotReady(
        f"{root}: must hold val_images/ and val_masks/ (or images/ and masks/) to evaluate on, but "
        "does not; add them"
    )


def _labelled_training(
    root: Path, settings: DatasetSettings, problems: list[SparBenchError]
) -> list[tuple[Path, Path]]:
    """Pair training images with their masks; `images` with `masks` are what is evaluated."""
    lacking = [f"{name}/" for name in _TRAINING if not (root / name).is_dir()]
    if lacking:
        raise settings.without_labels(f"no {' and no '.join(lacking)} in {root}", "add what lacks")
    images, masks = _TRAINING
    return _paired(root / images, root / masks, problems)


def _paired(images: Path, masks: Path, problems: list[SparBenchError]) -> list[tuple[Path, Path]]:
    image_of = _by_stem(images, ENDINGS, problems)
    mask_of = _by_stem(masks, _MASK_ENDINGS, problems)
    problems += _without_partner(image_of, mask_of, masks)
    problems += _without_partner(mask_of, image_of, images)
    return [(path, mask_of[stem]) for stem, path in image_of.items() if stem in mask_of]


def _without_partner(
    files: dict[str, Path], partners: dict[str, Path], folder: Path
) -> list[NotReady]:
    return [
        NotReady(
            f"{path}: must have a partner of the same name in {folder}, but has none; "
            "add it, or remove the file"
        )
        for stem, path in files.items()
        if stem not in partners
    ]


def _by_stem(
    folder: Path, endings: frozenset[str], problems: list[SparBenchError]
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _listed(folder, endings, problems):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            text = (
                f"{path}: must have a name of its own apart from the ending, "
                f"but {found[stem].name} has the same; remove one"
            )
            problems.append(DataError(text))
            continue
        found[stem] = path
    return found


def _listed(folder: Path, endings: frozenset[str], problems: list[SparBenchError]) -> list[Path]:
    """List a folder of our layout, in which every file must be usable."""
    found = files_below(folder)
    for path in found:
        if path.suffix.lower() not in endings:
            text = (
                f"{path}: must end in {_either(endings)}, but ends in {path.suffix!r}; "
                "convert it, or remove it"
            )
            problems.append(DataError(text))
    fitting = [path for path in found if path.suffix.lower() in endings]
    return fitting if problems else _not_empty(fitting, folder, endings)


def _not_empty(found: list[Path], folder: Path, endings: frozenset[str]) -> list[Path]:
    if not found:
        raise NotReady(
            f"{folder}: must hold a file, but has none that ends in {_either(endings)}; add some"
        )
    return found


def _read_classes(path: Path) -> list[list[str]]:
    """Read class names by label, each with its synonyms after it.

    Raises:
        NotReady: there is no such file.
        DataError: it is not UTF-8 text, names no class or more than 255, or names a class twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise NotReady(
            f"{path}: must list the classes, one per line, but cannot be read ({error.strerror}); "
            "write it"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: must be UTF-8 text, but is not ({error.reason}); save it as UTF-8"
        ) from error
    classes: list[list[str]] = []
    taken: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        names = [name.strip() for name in line.split(",") if name.strip()]
        if not names:
            raise DataError(f"{path}: line {number}: must name a class, but got {line!r}; name it")
        for name in names:
            if taken.setdefault(name, number) != number:
                raise DataError(
                    f"{path}: line {number}: {name!r} must name one class, "
                    f"but line {taken[name]} has it too; rename one"
                )
        classes.append(names)
    if not 0 < len(classes) <= IGNORED:
        raise DataError(
            f"{path}: must name 1 to {IGNORED} classes, but names {len(classes)}; write one per "
            "line"
        )
    return classes


def _either(endings: frozenset[str]) -> str:
    return " or ".join(sorted(endings))
