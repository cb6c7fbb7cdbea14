"""A user's own folder of images: any photographs to distil on, labelled ones to evaluate on.

    <path>/train_images/   distillation images; else images/; else every image below <path>
    <path>/val_images/     validation images, with val_masks/; else images/ with masks/
    <path>/val_masks/      index PNG of the same name; 255 is ignored
    <path>/classes.txt     one class a line, synonyms after commas, line 0 is label 0

Sub-folders are read too. In classes.txt blank lines and lines that start with # are skipped.
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from spar_bench.datasets.base import IGNORED, DatasetSettings, Image, Sample, Split
from spar_bench.datasets.images import ENDINGS, read_image, read_mask
from spar_bench.digests import file_digests
from spar_bench.errors import DataError, NotReady

VERSION = 1

_MASK_ENDINGS = frozenset({".png"})
_LAYOUTS = [("val_images", "val_masks"), ("images", "masks")]


class Dataset:
    """The images of one split, in the order of their names."""

    def __init__(self, split: Split, settings: DatasetSettings) -> None:
        """List the files and pair images with masks; read class names, and no image.

        Raises:
            NotReady: a folder or a mask is missing.
            DataError: a file has an ending that is not read, or the class list makes no sense.
        """
        self._root = _root(settings.path)
        self._masks: list[Path] = []
        self.classes: list[list[str]] = []
        if split == "train":
            self._images = _train_images(self._root)[: settings.count]
            return
        self.classes = settings.classes or _read_classes(self._root / "classes.txt")
        pairs = _labelled_images(self._root)[: settings.count]
        self._images = [image for image, _ in pairs]
        self._masks = [mask for _, mask in pairs]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    @cached_property
    def image_hw(self) -> tuple[int, int]:
        """Size of the first image, upright, height first."""
        # Read whole: where a header holds the orientation, and whether its size is upright already,
        # differs by format.
        height, width, _ = read_image(self._images[0]).shape
        return height, width

    def identity(self) -> dict[str, Any]:
        """Return the digest of names, files and classes; not where the folder lies."""
        files = self._images + self._masks
        digest = hashlib.sha256()
        for path, content in zip(files, file_digests(files), strict=True):
            digest.update(f"{self._name(path)}\0{content}\n".encode())
        digest.update(json.dumps(self.classes).encode())
        return {"count": len(self), "sha256": digest.hexdigest()}

    def image(self, index: int) -> Image:
        """Return the image alone, `(H, W, 3)`."""
        return read_image(self._images[index])

    def sample(self, index: int) -> Sample:
        """Return name, image `(H, W, 3)` and mask `(H, W)`.

        Raises:
            DataError: a file cannot be read, sizes differ, or a label has no class.
        """
        path = self._masks[index]
        image, mask = self.image(index), read_mask(path)
        if mask.shape != image.shape[:2]:
            raise DataError(
                f"{path}: a mask must have the size of its image ({_size(image.shape)}), "
                f"but has {_size(mask.shape)}; make it anew from {self._name(self._images[index])}"
            )
        largest = int(mask.max(where=mask != IGNORED, initial=0))
        if largest >= len(self.classes):
            raise DataError(
                f"{path}: labels must be below the number of classes ({len(self.classes)}) or "
                f"{IGNORED}, but has {largest}; add the class to classes.txt or relabel"
            )
        return Sample(self._name(self._images[index]), image, mask)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _root(path: str | None) -> Path:
    if path is None:
        raise NotReady("data set folder: path must name a folder, but is not given; add `path:`")
    root = Path(path).expanduser()
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise NotReady(f"{root}: must be a folder of images, but {found}; correct `path:`")
    return root


def _train_images(root: Path) -> list[Path]:
    """List distillation images; a folder without a layout of ours may hold other files too."""
    for name in ("train_images", "images"):
        if (root / name).is_dir():
            return _listed(root / name, ENDINGS)
    for name in ("val_images", "val_masks", "masks"):
        if (root / name).is_dir():  # taking its files for photographs would distil on masks
            raise NotReady(
                f"{root}: has {name}/ but no train_images/ to distil on; add it, or name a folder "
                "that holds nothing but photographs"
            )
    found = [path for path in _files(root) if path.suffix.lower() in ENDINGS]
    return _not_empty(found, root, ENDINGS)


def _labelled_images(root: Path) -> list[tuple[Path, Path]]:
    """Pair validation images with the masks of the same name, sorted by name."""
    for images, masks in _LAYOUTS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return _paired(root / images, root / masks)
    raise NotReady(
        f"{root}: must hold val_images/ and val_masks/ (or images/ and masks/) to evaluate on; "
        "add them"
    )


def _paired(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    image_of = _by_stem(images, ENDINGS)
    mask_of = _by_stem(masks, _MASK_ENDINGS)
    _require_partners(image_of, mask_of, masks)
    _require_partners(mask_of, image_of, images)
    return [(path, mask_of[stem]) for stem, path in image_of.items()]


def _require_partners(files: dict[str, Path], partners: dict[str, Path], folder: Path) -> None:
    alone = [path for stem, path in files.items() if stem not in partners]
    if alone:
        more = f" (nor have {len(alone) - 1} others)" if len(alone) > 1 else ""
        raise NotReady(
            f"{alone[0]}: must have a partner of the same name in {folder}, but has none{more}; "
            "add it, or take the file away"
        )


def _by_stem(folder: Path, endings: frozenset[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _listed(folder, endings):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(
                f"{path}: image and mask are matched by name without ending, "
                f"but {found[stem].name} has the same; take one away"
            )
        found[stem] = path
    return found


def _listed(folder: Path, endings: frozenset[str]) -> list[Path]:
    """List a folder that is ours by its name, in which every file must be of use."""
    found = _files(folder)
    for path in found:
        if path.suffix.lower() not in endings:
            raise DataError(
                f"{path}: must end in {_either(endings)}, but ends in {path.suffix!r}; "
                "convert it, or take it away"
            )
    return _not_empty(found, folder, endings)


def _not_empty(found: list[Path], folder: Path, endings: frozenset[str]) -> list[Path]:
    if not found:
        raise NotReady(
            f"{folder}: must hold a file, but has none that ends in {_either(endings)}; add some"
        )
    return found


def _files(folder: Path) -> list[Path]:
    """List the files below a folder, sorted by name; hidden files and folders are passed over."""
    names = [
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]
    return [folder / name for name in sorted(names, key=Path.as_posix)]


def _read_classes(path: Path) -> list[list[str]]:
    """Read class names by label, each with its synonyms after it.

    Raises:
        NotReady: there is no such file.
        DataError: it is not UTF-8 text, or names no class, a class twice, or more than 255.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise NotReady(
            f"{path}: must list the classes, one a line, but cannot be read ({error.strerror}); "
            "write it"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: must be UTF-8 text, but is not ({error.reason}); save it so"
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
            f"{path}: must name 1 to {IGNORED} classes, but names {len(classes)}; write one a line"
        )
    return classes


def _either(endings: frozenset[str]) -> str:
    return " or ".join(sorted(endings))


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} px wide, {shape[0]} px high"
