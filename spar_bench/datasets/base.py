"""The contract of a data set plug-in: labelled images by index, read without torch."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3), RGB
Mask = NDArray[np.uint8]  # (H, W), class index, IGNORED where unlabelled
Split = Literal["train", "val"]

IGNORED = 255


@dataclass(frozen=True)
class DatasetSettings:
    """What a spec says of a data set: its folder, how many images to use, other class names."""

    path: str | None = None
    count: int | None = None
    classes: list[list[str]] | None = None


class Sample(NamedTuple):
    """A labelled image."""

    name: str
    image: Image
    mask: Mask


class Dataset(Protocol):
    """A data set plug-in: a module of this folder with a class `Dataset` and a `VERSION`.

    `train` is what distillation images are drawn from (labels are never asked for); `val` is what
    is evaluated. Constructing one lists files and reads no image. Raises NotReady when its files
    are missing, DataError when one cannot be read.
    """

    def __init__(self, split: Split, settings: DatasetSettings) -> None: ...

    @property
    def classes(self) -> list[list[str]]:
        """Class names by label, each with its synonyms after it."""
        ...

    @property
    def image_hw(self) -> tuple[int, int]:
        """Declared size of an image, height first, in pixels: what costs are stated for."""
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
