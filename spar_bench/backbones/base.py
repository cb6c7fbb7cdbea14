"""The contract of a backbone plug-in: images to dense features in the space of its text tower.

Shape legend: B images, H x W pixels, h x w patches, C channels, T prompts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, assert_never, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spar_bench.components.sizes import Sizes
from spar_bench.components.weights import Channels
from spar_bench.errors import SparBenchError


@dataclass(frozen=True)
class Parts:
    """The named parts of a ViT that a student may train, input side first."""

    blocks: list[list[nn.Parameter]]
    attention: list[list[nn.Parameter]]
    mlp: list[list[nn.Parameter]]
    position_embedding: list[nn.Parameter]
    patch_embedding: list[nn.Parameter]


Block = Callable[[Tensor], Tensor]
Library = Literal["open_clip", "timm"]


@dataclass(frozen=True)
class Exported:
    """A model as another library reads it from a folder: a config, weights, and further files.

    `check` loads the folder with that library alone, and returns its output for native images
    `(B, 3, H, W)` and that of the backbone's own tower: the two must agree.
    """

    config_name: str
    config: dict[str, Any]
    weights_name: str
    state: dict[str, Tensor]
    further: Sequence[Path]
    check: Callable[[Path, Tensor], tuple[Tensor, Tensor]]


class Backbone(ABC):
    """A backbone plug-in: a module with a class `Backbone`, a `VERSION`, and a data file of sizes.

    It is constructed from the spec's `BackboneSpec`, in evaluation mode, in float32 on the CPU, and
    sets the attributes below. Dense features are `read` of its `blocks` over what it `embed`s. How
    much that costs is stated by its read-out, `sizes.read_out`, in the family `read_outs`.
    """

    sizes: Sizes
    mean: Channels
    std: Channels
    visual: nn.Module
    """The image tower: what a student copies, trains and saves."""
    model: nn.Module
    """All modules, text tower included: what moves to a device."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens before the first block, `(B, N, D)`, prefix tokens first.

        Images `(B, 3, H, W)` are normalised; their sides are whole patches.
        """

    @abstractmethod
    def blocks(self, grid_hw: tuple[int, int]) -> Sequence[Block]:
        """Return the blocks that map tokens to tokens, input side first, as they run on a grid.

        A last block that a read-out runs in another way is a part of `read`.
        """

    @abstractmethod
    def read(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return dense features `(B, C, h, w)` of the tokens after the last of `blocks`."""

    @abstractmethod
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Embed prompts to `(T, C)`, normalised, without gradient.

        Raises:
            SparBenchError: a prompt has a word that the text tower does not know.
        """

    @abstractmethod
    def parts(self) -> Parts:
        """Return the trainable parts; those of the blocks are indexed from the input side."""

    def features(self, images: Tensor) -> Tensor:
        """Encode normalised images `(B, 3, H, W)` to dense features `(B, C, h, w)`.

        `h, w` is `sizes.grid_hw((H, W))`. Not normalised; gradient flows to `visual`.
        """
        return self.features_after(0, *self.embedded(images))

    def embedded(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens of images before the first block, `(B, N, D)`, and their grid."""
        whole = fit_sides(images, self.sizes)
        return self.embed(whole), self.sizes.grid_hw((whole.shape[-2], whole.shape[-1]))

    def features_after(self, depth: int, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Return the dense features of the tokens after the first `depth` blocks."""
        for block in self.blocks(grid_hw)[depth:]:
            tokens = block(tokens)
        return self.read(tokens, grid_hw)

    def to(self, device: torch.device) -> None:
        """Move all modules to a device."""
        self.model.to(device)

    def load_visual(self, state: Mapping[str, Tensor]) -> None:
        """Replace the image tower's weights; every name must match."""
        self.visual.load_state_dict(state, strict=True)


def on_grid(tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Lay tokens `(B, h * w, C)` out on their grid, `(B, C, h, w)`."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid_hw)


@runtime_checkable
class Exchangeable(Protocol):
    """Optional extras of a backbone: read others' checkpoints, and be read by other libraries."""

    def from_checkpoint(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the image tower's weights, by its own names, out of a whole checkpoint's.

        Raises:
            KeyError: the checkpoint lacks one; the message says which.
            ValueError: it is of another model: its text tower differs, or it has extra tensors.
        """
        ...

    def export(self, library: Library) -> "Exported":
        """Return the model as another library reads it, with its current weights.

        Raises:
            SparBenchError: that library has no such model.
        """
        ...


def under_any_prefix(names: Iterable[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of those names, which all have one prefix in `state`, or none.

    Raises:
        KeyError: no prefix gives all of them; the message names a missing one.
        ValueError: two prefixes do, with different values; or one has more of the same modules.
    """
    wanted = list(names)
    prefixes = {key.removesuffix(wanted[0]) for key in state if key.endswith(wanted[0])}
    whole = sorted(p for p in prefixes if all(p + name in state for name in wanted))
    if not whole:
        lacking = {p: [name for name in wanted if p + name not in state] for p in prefixes or {""}}
        raise KeyError(f"it lacks {min(lacking.values(), key=len)[0]!r}, under any prefix")
    first, *others = whole
    for other in others:
        if not all(torch.equal(state[first + name], state[other + name]) for name in wanted):
            raise ValueError(f"it holds two of them, under {first!r} and {other!r}; keep one")
    parts = {name.partition(".")[0] for name in wanted}
    under = {key.removeprefix(first) for key in state if key.startswith(first)} - set(wanted)
    further = sorted(name for name in under if name.partition(".")[0] in parts)
    if further:
        raise ValueError(f"it also holds {first + further[0]!r}, which this model does not have")
    return {name: state[first + name] for name in wanted}


def require_same_text(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint with another text tower than a backbone's, which no student changes.

    They are compared at the checkpoint's precision; tensors that it lacks are not required.

    Raises:
        ValueError: a tensor differs; the message names it.
    """
    anchor = "token_embedding.weight"
    own_prefix = next(name.removesuffix(anchor) for name in own if name.endswith(anchor))
    for prefix in [key.removesuffix(anchor) for key in state if key.endswith(anchor)]:
        for name, value in own.items():
            key = prefix + name.removeprefix(own_prefix)
            theirs = state.get(key, value)
            if theirs.shape != value.shape or not torch.equal(
                theirs, value.to(theirs.device, theirs.dtype)
            ):
                raise ValueError(f"its text tower is a different one: {key!r} differs")


def fit_sides(images: Tensor, sizes: Sizes) -> Tensor:
    """Give images `(..., 3, H, W)` the sides `sizes.whole_hw((H, W))`, multiples of the patch.

    As the backbone's `odd_sides` says, the rest of a side is dropped, padded with zeros at the far
    border, or the image is stretched bicubically without antialiasing. An image beyond the token
    budget is first scaled down, bilinearly with antialiasing.
    """
    scaled_hw = sizes.scaled_hw((images.shape[-2], images.shape[-1]))
    if scaled_hw != images.shape[-2:]:
        images = _resized(images, scaled_hw, mode="bilinear", antialias=True)
    height, width = scaled_hw
    rows, columns = sizes.whole_hw(scaled_hw)
    if (rows, columns) == scaled_hw:
        return images
    match sizes.odd_sides:
        case "floor":
            return images[..., :rows, :columns]
        case "pad":
            return F.pad(images, (0, columns - width, 0, rows - height))
        case "stretch":
            return _resized(images, (rows, columns), mode="bicubic", antialias=False)
        case never:
            assert_never(never)


def _resized(images: Tensor, image_hw: tuple[int, int], *, mode: str, antialias: bool) -> Tensor:
    batch = images.reshape(-1, *images.shape[-3:])
    resized = F.interpolate(batch, size=image_hw, mode=mode, antialias=antialias)
    return resized.reshape(*images.shape[:-2], *image_hw)


def require_exchangeable(backbone: Backbone, name: str) -> Exchangeable:
    """Return a backbone as one whose weights can be exchanged.

    Raises:
        SparBenchError: its plug-in does not offer it.
    """
    if isinstance(backbone, Exchangeable):
        return backbone
    raise SparBenchError(
        f"backbone {name}: must be able to exchange weights, but its plug-in lacks "
        "from_checkpoint or export; add them"
    )
