"""The contract of a data set plug-in: labelled images by index, read without torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from spar_bench.datasets._facts import Facts
from spar_bench.errors import DataFileError, NotReady

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Image = NDArray[np.uint8]  # (H, W, 3), RGB
    Mask = NDArray[np.uint8]  # (H, W), class index, IGNORED where unlabelled
else:  # a spec is checked without numpy
    Image = Mask = Any
Split = Literal["train", "val"]

IGNORED = 255
T = TypeVar("T")


@dataclass(frozen=True)
class DatasetSettings:
    """What a spec and a data file say about a data set.

    `path` is its folder, `count` how many images to use (those that `evenly_spaced` takes, unless
    images are drawn independently), `classes` the class names of the spec, else of the data file;
    `name` is what the spec calls it, `facts` what its data file states. `labelled`: the masks of
    `train` are read too, as a linear probe needs them.
    """

    path: str | None = None
    count: int | None = None
    classes: list[list[str]] | None = None
    name: str = ""
    facts: Facts = field(default_factory=Facts)
    labelled: bool = False

    def refuse_files(self, plugin: str) -> None:
        """Refuse a data file that describes files for a plug-in that does not read them."""
        if self.facts.files:
            raise DataFileError(
                f"{self.name}: files: must be given only with plugin: tree, but plugin is "
                f"{plugin}; leave it out, or correct the plug-in"
            )

    def has_labels(self, split: Split) -> bool:
        """Whether the masks of a split are read."""
        return split == "val" or self.labelled

    def without_labels(self, lack: str, way_out: str) -> NotReady:
        """Return the error of a data set whose training images have no masks."""
        return NotReady(
            "evaluate.classifier: a linear probe must have labelled training images, but data set "
            f"{self.name} has {lack}; {way_out}, or use text"
        )


def evenly_spaced(images: Sequence[T], count: int | None) -> Sequence[T]:
    """Return `count` of n images, those at `floor(i * n / count)` for i from 0; None: all.

    The first images of a list may be neighbours, such as frames of one video, which say less about
    the whole and make an interval over images too narrow.
    """
    n = len(images)
    if count is None or count >= n:
        return images
    return [images[i * n // count] for i in range(count)]


class Sample(NamedTuple):
    """A labelled image."""

    name: str
    image: Image
    mask: Mask


class Dataset(Protocol):
    """A data set plug-in: a module of this folder with a class `Dataset` and a `VERSION`.

    `train` is what distillation images are drawn from, whose labels are never read, and what a
    linear probe learns from, whose labels are (`DatasetSettings.labelled`); `val` is evaluated.
    Constructing one lists files and reads no image. Raises NotReady when its files are missing,
    DataError when one cannot be read.

    A plug-in that knows the sizes of its images without reading them may have a further method,
    `image_sizes() -> dict[tuple[int, int], int]`: how many images have each size, height first.
    """

    def __init__(self, split: Split, settings: DatasetSettings) -> None: ...

    @property
    def classes(self) -> list[list[str]]:
        """Class names by label, each with its synonyms after it."""
        ...

    @property
    def image_hw(self) -> tuple[int, int]:
        """Declared size of an image, height first, in pixels: the one that costs are stated for."""
        ...

    def __len__(self) -> int: ...

    def identity(self) -> dict[str, Any]:
        """Return what decides the contents, as JSON; part of every fingerprint made from them."""
        ...

    def image(self, index: int) -> Image:
        """Return the image alone, `(H, W, 3)`."""
        ...

    def sample(self, index: int) -> Sample:
        """Return name, image `(H, W, 3)` and mask `(H, W)`."""
        ...
