"""Distillation images: drawn once from the seed, rendered the same way each time.

Shape legend: H, W image height and width in pixels, values 0 to 1 until normalised.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench.datasets.base import Dataset, Image
from spar_bench.plan.stages import resized_hw

CACHE_BYTES = 1 << 30
"""Rendered images kept in memory, as 8-bit; further ones are rendered again."""
SMALLEST_CROP = 0.4
"""A crop's sides are uniform shares of the image's, from this to 1.

Source: naomikombol/SPAR, generate_images.py @0f63ff2.
"""


@dataclass(frozen=True)
class Drawn:
    """One distillation image: which, how large, and what of it.

    `crop` holds the shares of height and width that are kept, then where the crop lies between the
    near (0) and the far border (1); None keeps the image whole.
    """

    index: int
    short_side_px: int
    crop: tuple[float, float, float, float] | None
    flip: bool

    def to_json(self) -> dict[str, Any]:
        """Return the drawn values as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Drawn":
        """Read back what `to_json` gave."""
        crop = None if value["crop"] is None else tuple(value["crop"])
        return cls(value["index"], value["short_side_px"], crop, value["flip"])


def draw(settings: dict[str, Any], n_source: int) -> list[Drawn]:
    """Draw the list of images that an `images` stage stands for.

    A source larger than `count` gives a sample of itself; a smaller one is gone through again, each
    time in a new order.
    """
    generator = np.random.default_rng(settings["seed"])
    count, (low, high) = settings["count"], settings["short_side_px"]
    rounds = -(-count // n_source)
    order = np.concatenate([generator.permutation(n_source) for _ in range(rounds)])[:count]
    drawn = []
    for index in order:
        short_side_px = int(generator.integers(low, high + 1))
        shares, places = generator.uniform(SMALLEST_CROP, 1, 2), generator.uniform(0, 1, 2)
        cropped, flipped = generator.uniform(size=2) < (settings["crop"], settings["flip"])
        crop = (*shares.tolist(), *places.tolist()) if cropped else None
        drawn.append(Drawn(int(index), short_side_px, crop, bool(flipped)))
    return drawn


def to_tensor(image: Image) -> Tensor:
    """Return an 8-bit image `(H, W, 3)` as float `(3, H, W)`, 0 to 1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def resize(image: Tensor, image_hw: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Resample `(3, H, W)` of 0 to 1 without antialiasing: bilinearly, as the paper, or bicubic."""
    if tuple(image.shape[-2:]) == image_hw:
        return image
    return F.interpolate(image[None], size=image_hw, mode=mode)[0].clamp(0, 1)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return `(..., 3, H, W)` less the mean, by the standard deviation, of each channel."""
    return (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(std)[:, None, None]


def render(image: Tensor, drawn: Drawn, *, patch_px: int, shortest_px: int) -> Tensor:
    """Resize, crop and mirror `(3, H, W)`; sides end as multiples of the patch.

    A crop keeps at least `shortest_px` of each side, where the resized image has that much.
    """
    image = resize(image, resized_hw((image.shape[-2], image.shape[-1]), drawn.short_side_px))
    sides = image.shape[-2:]
    if drawn.crop is None:
        kept, starts = list(sides), [0, 0]
    else:
        shares, places = drawn.crop[:2], drawn.crop[2:]
        kept = [
            max(round(side * share), min(shortest_px, side))
            for side, share in zip(sides, shares, strict=True)
        ]
        starts = [
            round((side - keep) * place)
            for side, keep, place in zip(sides, kept, places, strict=True)
        ]
    height, width = (max(keep // patch_px, 1) * patch_px for keep in kept)
    image = image[:, starts[0] : starts[0] + height, starts[1] : starts[1] + width]
    return image.flip(-1) if drawn.flip else image


class Pictures:
    """The images of an `images` stage by position, rendered on demand, kept while memory allows."""

    def __init__(self, source: Dataset, drawn: list[Drawn], settings: dict[str, Any]) -> None:
        self._source, self._drawn, self._settings = source, drawn, settings
        self._kept: dict[int, Tensor] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, position: int) -> Tensor:
        """Return the image at a position of the list, `(3, H, W)`, 0 to 1 in steps of 1/255."""
        if position not in self._kept:
            drawn = self._drawn[position]
            picture = render(
                to_tensor(self._source.image(drawn.index)),
                drawn,
                patch_px=self._settings["patch_px"],
                shortest_px=self._settings["shortest_px"],
            )
            bytes_ = (picture * 255).round().to(torch.uint8)
            if self._kept_bytes + bytes_.numel() > CACHE_BYTES:
                return bytes_.float() / 255
            self._kept[position] = bytes_
            self._kept_bytes += bytes_.numel()
        return self._kept[position].float() / 255
