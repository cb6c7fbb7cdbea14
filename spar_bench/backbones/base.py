"""The contract of a backbone plug-in: images to dense features in the space of its text tower.

Shape legend: B images, H x W pixels, h x w patches, C channels, T prompts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spar_bench.backbones import Sizes


@dataclass(frozen=True)
class Parts:
    """The named parts of a ViT that a student may train, input side first."""

    blocks: list[list[nn.Parameter]]
    attention: list[list[nn.Parameter]]
    mlp: list[list[nn.Parameter]]
    position_embedding: list[nn.Parameter]
    patch_embedding: list[nn.Parameter]


class Backbone(Protocol):
    """A backbone plug-in: a module with a class `Backbone`, a `VERSION`, and a data file of sizes.

    It is constructed from the spec's `BackboneSpec`, in evaluation mode, in float32 on the CPU.
    """

    sizes: Sizes
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    visual: nn.Module
    """The image tower: what a student copies, trains and saves."""

    def to(self, device: torch.device) -> None:
        """Move both towers to a device."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """Encode normalised images `(B, 3, H, W)` to dense features `(B, C, h, w)`.

        `h, w` is `sizes.grid_hw((H, W))`. Not normalised; gradient flows to `visual`.
        """
        ...

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Embed prompts to `(T, C)`, normalised, without gradient.

        Raises:
            SparBenchError: the text tower does not know a word.
        """
        ...

    def parts(self) -> Parts:
        """Return the trainable parts; those of the blocks are indexed from the input side."""
        ...

    def load_visual(self, state: Mapping[str, Tensor]) -> None:
        """Replace the image tower's weights; every name must match."""
        ...


def fit_sides(images: Tensor, sizes: Sizes) -> Tensor:
    """Give images `(..., 3, H, W)` the sides `sizes.whole_hw((H, W))`, all whole patches.

    As the backbone's `odd_sides` says, the rest of a side is dropped, padded with zeros at the far
    border, or the image is stretched bicubically without antialiasing.
    """
    height, width = images.shape[-2:]
    rows, columns = sizes.whole_hw((height, width))
    if (rows, columns) == (height, width):
        return images
    if sizes.odd_sides == "floor":
        return images[..., :rows, :columns]
    if sizes.odd_sides == "pad":
        return F.pad(images, (0, columns - width, 0, rows - height))
    batch = images.reshape(-1, *images.shape[-3:])
    stretched = F.interpolate(batch, size=(rows, columns), mode="bicubic")
    return stretched.reshape(*images.shape[:-2], rows, columns)
