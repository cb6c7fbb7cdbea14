"""The shapes of weights that a backbone's sizes determine, compared with a file's; without torch.

open_clip would silently resample position embeddings of another number.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path

from safetensors import safe_open

from spar_bench.backbones._sizes import Sizes
from spar_bench.errors import NotReady

Shape = tuple[int, ...]


def stated_shapes(path: Path) -> dict[str, Shape]:
    """Return the shapes that the header of a safetensors file states; {} for other files.

    Raises:
        SafetensorError: the file is not whole.
    """
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "np") as file:
        names = file.keys()
        return {name: tuple(file.get_slice(name).get_shape()) for name in names}


def require_shapes(path: Path, found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> None:
    """Refuse a file of weights whose shapes are not the wanted ones; others are not looked at.

    Names may have the prefix of torch's data parallelism, and text towers none, as in older files.

    Raises:
        NotReady: one has another number of elements.
    """
    bare = {name.removeprefix("module."): shape for name, shape in found.items()}
    for name, shape in wanted.items():
        own = bare.get(name, bare.get(name.removeprefix("text.")))
        if own is not None and prod(own) != prod(shape):
            raise NotReady(
                f"{path}: {name} must be of shape {shape}, but is of shape {own}; name other "
                "weights, or the backbone they belong to"
            )


def determined_shapes(sizes: Sizes) -> dict[str, Shape]:
    """Return the shapes of patch and position embeddings, by their names in each library's files.

    Those of open_clip's own ViT, of timm's in open_clip, of its NaFlex, and of DINOv3.
    """
    side_px, width = sizes.patch_px, sizes.width
    side = sizes.image_px // side_px
    patches = (width, 3, side_px, side_px)
    return {
        "visual.conv1.weight": patches,
        "visual.positional_embedding": (sizes.prefix_tokens + side * side, width),
        "visual.trunk.patch_embed.proj.weight": patches,
        "visual.trunk.pos_embed": (1, sizes.prefix_tokens + side * side, width),
        "visual.trunk.embeds.proj.weight": (width, 3 * side_px * side_px),
        "visual.trunk.embeds.pos_embed": (1, side, side, width),
        "patch_embed.proj.weight": patches,
        "visual_model.backbone.patch_embed.proj.weight": patches,
    }
