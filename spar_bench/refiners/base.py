"""The contract of a refiner plug-in, which may sharpen class scores before upsampling.

Shape legend: Q classes, h x w grid of scores, H x W image in pixels.
"""

from typing import Protocol

from torch import Tensor


class Refiner(Protocol):
    """A refiner plug-in: a module of this folder with a class `Refiner` and a `VERSION`.

    It is constructed once without arguments, and then called for each image.
    """

    def __call__(self, logits: Tensor, image: Tensor) -> Tensor:
        """Return refined scores `(Q, h, w)` for logits `(Q, h, w)` of the image `(3, H, W)`."""
        ...
