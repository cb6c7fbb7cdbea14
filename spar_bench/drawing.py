"""Which distillation images are drawn, and how large each is: the same in a plan and in a run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from pydantic import JsonValue

from spar_bench.inference import resized_hw
from spar_bench.validation import Part

SMALLEST_CROP = 0.4
"""A crop's sides are uniform shares of the image's, from this to 1.

Source: naomikombol/SPAR, generate_images.py @0f63ff2.
"""


class Drawing(Part):
    """What decides the list of distillation images, besides their source.

    Sides end up as multiples of `patch_px`; neither cap nor crop makes one shorter than
    `shortest_px`. The other fields are those of the spec.
    """

    count: int
    short_side_px: tuple[int, int]
    long_side_ratio: float | None = None
    crop: float
    flip: float
    seed: int
    patch_px: int
    shortest_px: int


@dataclass(frozen=True)
class Drawn:
    """One distillation image: which one, how large, and which part of it.

    `crop` holds the shares of height and width that are kept, then where the crop lies between the
    near (0) and the far border (1); None keeps the image whole.
    """

    index: int
    short_side_px: int
    crop: tuple[float, float, float, float] | None
    flip: bool

    def to_json(self) -> dict[str, JsonValue]:
        """Return the drawn values as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Drawn":
        """Read back what `to_json` gave."""
        crop = None if value["crop"] is None else tuple(value["crop"])
        return cls(value["index"], value["short_side_px"], crop, value["flip"])


@dataclass(frozen=True)
class Frame:
    """How an image is rendered: its size after resizing, then the part that is kept, in px."""

    resized_hw: tuple[int, int]
    start: tuple[int, int]
    image_hw: tuple[int, int]


def draw(drawing: Drawing, n_source: int) -> list[Drawn]:
    """Draw the list of distillation images from a source of `n_source` images.

    A source larger than `count` is sampled; a smaller one is repeated, each time in a new order.
    """
    import numpy as np  # late: a spec is checked without it

    generator = np.random.default_rng(drawing.seed)
    count, (low, high) = drawing.count, drawing.short_side_px
    rounds = -(-count // n_source)
    order = np.concatenate([generator.permutation(n_source) for _ in range(rounds)])[:count]
    drawn = []
    for index in order:
        short_side_px = int(generator.integers(low, high + 1))
        shares, places = generator.uniform(SMALLEST_CROP, 1, 2), generator.uniform(0, 1, 2)
        cropped, flipped = generator.uniform(size=2) < (drawing.crop, drawing.flip)
        crop = (*shares.tolist(), *places.tolist()) if cropped else None
        drawn.append(Drawn(int(index), short_side_px, crop, bool(flipped)))
    return drawn


def rescaled_hw(
    image_hw: tuple[int, int],
    short_side_px: int,
    *,
    long_side_ratio: float | None,
    shortest_px: int,
) -> tuple[int, int]:
    """Return the size that an image is resized to, keeping its ratio.

    The short side is the drawn one, or less where the long side would exceed `long_side_ratio`
    times it; but no cap reduces the short side below `shortest_px`.
    """
    sides, _ = _rescaled(image_hw, short_side_px, long_side_ratio, shortest_px)
    return sides


def _rescaled(
    image_hw: tuple[int, int], short_side_px: int, long_side_ratio: float | None, shortest_px: int
) -> tuple[tuple[int, int], bool]:
    """Return the same, and whether `shortest_px` overrode the cap."""
    if long_side_ratio is None:
        return resized_hw(image_hw, short_side_px), False
    longest_px = int(long_side_ratio * short_side_px)
    height, width = resized_hw(image_hw, short_side_px, longest_px, half_up=True)
    least, shorter = min(shortest_px, short_side_px), min(height, width)
    if shorter >= least:
        return (height, width), False
    scale = least / shorter
    return (max(int(height * scale), least), max(int(width * scale), least)), True


def frame(image_hw: tuple[int, int], drawn: Drawn, drawing: Drawing) -> Frame:
    """Return how an image is rendered; sides end up as multiples of the patch.

    A crop keeps at least `shortest_px` of each side, if the resized image is that large. An
    uncropped image loses its remainder. With `long_side_ratio` the paper's released code is
    followed instead: an image kept whole is resized to the multiples, its ratio all but kept, and
    one for which the cap gave way is never cropped. Source: naomikombol/SPAR,
    utils/image_generation_utils.py @250907e.

    Args:
        image_hw: Size of the image as it is in its source.
        drawn: What was drawn for it.
        drawing: What decides the whole list.
    """
    patch_px, shortest_px = drawing.patch_px, drawing.shortest_px
    ratio = drawing.long_side_ratio
    sides, gave_way = _rescaled(image_hw, drawn.short_side_px, ratio, shortest_px)
    if ratio is not None and (gave_way or drawn.crop is None):
        whole = _whole_patches(sides, patch_px)
        return Frame(whole, (0, 0), whole)
    kept, start = sides, (0, 0)
    if drawn.crop is not None:
        shares, places = drawn.crop[:2], drawn.crop[2:]
        kept_h, kept_w = (
            max(round(side * share), min(shortest_px, side))
            for side, share in zip(sides, shares, strict=True)
        )
        kept = kept_h, kept_w
        start = round((sides[0] - kept_h) * places[0]), round((sides[1] - kept_w) * places[1])
    return Frame(sides, start, _whole_patches(kept, patch_px))


def _whole_patches(sides: tuple[int, int], patch_px: int) -> tuple[int, int]:
    """Return the largest multiples of the patch within the sides, but at least one patch."""
    height, width = (max(side // patch_px, 1) * patch_px for side in sides)
    return height, width


@lru_cache(maxsize=32)
def drawn_sizes(
    drawing: Drawing, n_source: int, source_hw: tuple[int, int]
) -> Mapping[tuple[int, int], int]:
    """Count the sizes of the drawn images, assuming that all of their source have one size.

    The list is exactly what the stage will draw, so sums over it are exact.
    """
    return Counter(frame(source_hw, one, drawing).image_hw for one in draw(drawing, n_source))
