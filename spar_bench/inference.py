"""How an image is read: resized, then in one pass or through a sliding window."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

ImageSizes = Mapping[tuple[int, int], int]
"""How many images have each size, height first."""


@dataclass(frozen=True)
class Inference:
    """How features are read: in one pass, or through a sliding window.

    `average` says what is averaged where windows overlap; `upsample` is the factor r of feature
    averaging. Both are None where they do not apply.
    """

    kind: Literal["single_pass", "sliding_window"]
    window_px: int | None = None
    stride_px: int | None = None
    average: Literal["logits", "features"] | None = None
    upsample: int | None = None

    @property
    def window_and_stride_px(self) -> tuple[int, int]:
        """The window's side and the step between windows.

        Raises:
            ValueError: it is a single pass.
        """
        if self.window_px is None or self.stride_px is None:
            raise ValueError("inference: a single pass has no window; ask a sliding window")
        return self.window_px, self.stride_px


SINGLE_PASS = Inference("single_pass")


class Resize(NamedTuple):
    """The size at which images are read: their short side, and the limit of the long side."""

    short_side_px: int
    long_side_px: int | None = None

    def of(self, image_hw: tuple[int, ...]) -> tuple[int, int]:
        """Return the size that an image of this shape is resized to."""
        return resized_hw((image_hw[0], image_hw[1]), *self, half_up=True)

    def of_all(self, sizes: ImageSizes) -> ImageSizes:
        """Return how many images have each size once they are resized."""
        found = Counter[tuple[int, int]]()
        for image_hw, count in sizes.items():
            found[self.of(image_hw)] += count
        return dict(found)


def resized_hw(
    image_hw: tuple[int, int],
    short_side_px: int,
    long_side_px: int | None = None,
    *,
    half_up: bool = False,
) -> tuple[int, int]:
    """Return the size of an image with its short side resized to `short_side_px`, ratio kept.

    If the long side would exceed `long_side_px`, it is resized to that. Half a pixel is rounded to
    even, or with `half_up` up, as in the paper's protocol. Source: mmcv, `imrescale`.
    """
    scale = short_side_px / min(image_hw)
    if long_side_px is not None:
        scale = min(scale, long_side_px / max(image_hw))
    height, width = (side * scale for side in image_hw)
    return (int(height + 0.5), int(width + 0.5)) if half_up else (round(height), round(width))
