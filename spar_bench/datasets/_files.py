"""What data sets of image and mask files share: pairing, labels, identity, reading."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from spar_bench.datasets.base import (
    IGNORED,
    DatasetSettings,
    Image,
    Mask,
    Sample,
    Split,
    evenly_spaced,
)
from spar_bench.digests import remembered_sha256s
from spar_bench.errors import DataError, NotReady, SparBenchError

LabelRule = Literal["as_stored", "reduce_zero"] | dict[int, int]
"""What a mask's stored values mean: the label itself; the label plus one, with 0 ignored; or what
a map says, which must have every value."""

ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
"""Endings of image files that are read, in lower case."""


@dataclass(frozen=True)
class Labels:
    """The label of each stored value, 256 of them; None where a value is a mistake."""

    table: tuple[int | None, ...]

    @classmethod
    def of(cls, rule: LabelRule, n_classes: int) -> "Labels":
        """Expand a rule; 255 stays ignored unless the rule is a map that says otherwise."""
        # A plan refuses more classes than 8 bits can hold; here they only must do no harm.
        values = {label: label for label in range(min(n_classes, IGNORED))}
        if rule == "reduce_zero":
            values = {0: IGNORED} | {label + 1: label for label in values if label + 1 < IGNORED}
        stated = {IGNORED: IGNORED} | (values if isinstance(rule, str) else rule)
        return cls(tuple(stated.get(value) for value in range(256)))

    def read(self, path: Path) -> Mask:
        """Return the labels of a mask file, `(H, W)`.

        Raises:
            DataError: it cannot be read, or holds a value that has no meaning.
        """
        from spar_bench.datasets._images import read_labels  # late: it needs numpy and Pillow

        return read_labels(path, self.table)


class Entry(NamedTuple):
    """An image file, and its mask where the split has labels."""

    image: Path
    mask: Path | None = None
    labels: Labels | None = None


@dataclass(frozen=True)
class Found:
    """The files of a split below `root`, in their order, and what is wrong with them."""

    root: Path
    entries: Sequence[Entry]
    classes: list[list[str]] = field(default_factory=list)
    problems: Sequence[SparBenchError] = ()
    labels: Any = None  # as stated, for the identity
    n_published: int | None = None


class FileDataset(ABC):
    """The images of one split; a plug-in's `Dataset` says only which files they are.

    `n_listed` is how many there are, of which `count` takes an evenly spaced part.
    """

    def __init__(
        self,
        split: Split,
        settings: DatasetSettings,
        *,
        problems: list[SparBenchError] | None = None,
    ) -> None:
        """List the files and pair images with masks; read class names, but no image.

        Missing or unexpected files are added to `problems`, and the others used; without
        `problems`, the first one is raised.

        Raises:
            NotReady: files are missing.
            DataError: a file has an unsupported ending or cannot be opened, or the class list is
                invalid.
        """
        found = self._find(split, settings)
        all_problems = [*found.problems, *_unreadable(found.entries)]
        if problems is None and all_problems:
            raise _first_of(all_problems)
        if problems is not None:
            problems += all_problems
        self.root, self.classes, self.n_published = found.root, found.classes, found.n_published
        self.n_listed = len(found.entries)
        self._entries = evenly_spaced(found.entries, settings.count)
        self._stated_labels = found.labels

    @abstractmethod
    def _find(self, split: Split, settings: DatasetSettings) -> Found: ...

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._entries)

    @cached_property
    def image_hw(self) -> tuple[int, int]:
        """Size of the first image that can be read, upright, height first.

        Raises:
            DataError: none of them can be.
        """
        unreadable = []
        for index in range(len(self)):
            # Read completely: formats differ in where the header holds the orientation, and whether
            # its size is upright already.
            try:
                height, width, _ = self.image(index).shape
            except DataError as error:
                unreadable.append(error)
            else:
                return height, width
        raise _first_of(unreadable)

    def image_sizes(self) -> dict[tuple[int, int], int]:
        """Return how many images have each size, upright, height first, from their headers.

        Those whose header cannot be read are left out.
        """
        from spar_bench.datasets._images import read_image_hw  # late, like all that reads images

        found = Counter[tuple[int, int]]()
        for entry in self._entries:
            with suppress(DataError):
                found[read_image_hw(entry.image)] += 1
        return dict(found)

    def identity(self) -> dict[str, Any]:
        """Return the digest of names, files and classes, and the label rule; not the location.

        Raises:
            DataError: a file cannot be read any more.
        """
        masks = [entry.mask for entry in self._entries if entry.mask is not None]
        files = [entry.image for entry in self._entries] + masks
        digest = hashlib.sha256()
        try:
            contents = remembered_sha256s(files)
        except OSError as error:
            raise DataError(_NOT_OPENED.format(error.filename)) from error
        for path, content in zip(files, contents, strict=True):
            digest.update(f"{self._name(path)}\0{content}\n".encode())
        digest.update(json.dumps(self.classes).encode())
        rule = {} if self._stated_labels is None else {"labels": self._stated_labels}
        return {"count": len(self), "sha256": digest.hexdigest(), **rule}

    def image(self, index: int) -> Image:
        """Return the image alone, `(H, W, 3)`."""
        from spar_bench.datasets._images import read_image  # late, too

        return read_image(self._entries[index].image)

    def sample(self, index: int) -> Sample:
        """Return name, image `(H, W, 3)` and mask `(H, W)`.

        Raises:
            DataError: a file cannot be read, sizes differ, or a label has no class.
        """
        path, mask_path, labels = self._entries[index]
        if mask_path is None or labels is None:
            raise DataError(f"{path}: must have a mask, but this split has none; use one that has")
        image, mask = self.image(index), labels.read(mask_path)
        if mask.shape != image.shape[:2]:
            raise DataError(
                f"{mask_path}: a mask must have the size of its image ({_size(image.shape)}), "
                f"but has {_size(mask.shape)}; recreate it from {self._name(path)}"
            )
        return Sample(self._name(path), image, mask)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


_NOT_OPENED = "{}: must be a file that can be opened, but is not; restore it, or remove it"


def _unreadable(entries: Sequence[Entry]) -> Iterator[DataError]:
    """Yield a problem for each file that may not be read, or is a link to nothing."""
    for image, mask, _ in entries:
        for path in (image, mask):
            if path is not None and not os.access(path, os.R_OK):
                yield DataError(_NOT_OPENED.format(path))


def absent(path: Path, rule: str) -> NotReady:
    """Return the problem of a missing file; one whose ending is spelt differently is named.

    `rule` says that it must exist, and why.
    """
    spelt = [path.suffix.upper(), path.suffix.lower()]
    if path.suffix.lower() in (".jpg", ".jpeg"):
        spelt += [".jpg", ".jpeg", ".JPG", ".JPEG"]
    others = (path.with_suffix(ending) for ending in spelt if ending != path.suffix)
    other = next((other for other in others if other.is_file()), None)
    way_out = "get it again" if other is None else f"rename {other.name}"
    return NotReady(f"{path}: {rule}, but does not; {way_out}")


def _first_of(problems: Sequence[SparBenchError]) -> SparBenchError:
    """Return the first problem as one line that counts the others."""
    if len(problems) == 1:
        return problems[0]
    more = f"{len(problems) - 1} more; `spar-bench datasets check` lists them"
    return type(problems[0])(f"{problems[0]} (and {more})")


def files_below(folder: Path) -> list[Path]:
    """List the files below a folder, sorted by name; hidden files and folders are skipped."""
    return [folder / name for name in names_below(folder)]


def names_below(folder: Path) -> list[str]:
    """List the same files by their paths below the folder, separated by slashes.

    Links are followed, but not upwards, where they would never end.

    Raises:
        NotReady: a folder cannot be read.
    """
    found = []
    for above, folders, names in os.walk(folder, followlinks=True, onerror=_require_readable):
        here = Path(above)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and not here.resolve().is_relative_to((here / name).resolve())
        ]
        below = here.relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found += [f"{prefix}{name}" for name in names if not name.startswith(".")]
    return sorted(found)


def _require_readable(error: OSError) -> None:
    """Accept a missing folder, whose files are reported as missing, but not an unreadable one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise NotReady(
            f"{error.filename}: must be a readable folder, but reading it failed "
            f"({error.strerror}); check its permissions"
        ) from error


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} px wide, {shape[0]} px high"
