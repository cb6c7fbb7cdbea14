"""The backbones: one plug-in a file, and its sizes in a data file beside it, read without torch."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spar_bench import registry
from spar_bench.digests import file_digests
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_ENDINGS = {".safetensors", ".bin", ".pt", ".pth"}
_DECIDING_ENDINGS = {*WEIGHTS_ENDINGS, ".json", ".txt", ".model"}  # the last two: tokenizers


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a plan needs to know of a backbone: the shapes that decide windows, FLOPs and bytes.

    `source` says where its weights come from; `folder` where they lie, "" where a spec must say.
    """

    patch_px: int
    image_px: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    channels: int
    read_out: str
    license: str = ""
    source: str = ""
    folder: str = ""

    def grid_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the patch grid of an image; a remainder that fills no patch is dropped."""
        return image_hw[0] // self.patch_px, image_hw[1] // self.patch_px


def sizes(spec: BackboneSpec) -> Sizes | None:
    """Return a backbone's sizes, or None where no data file or config states them.

    Raises:
        UnknownName: no backbone of that name.
        NotReady: the folder of `path` has no readable config.
    """
    registry.plugin("backbones", spec.name)
    if spec.path is not None:
        return _sizes_of_config(Path(spec.path) / CONFIG_FILE)
    path = registry.data_file("backbones", spec.name)
    if path is None:
        return None
    known = Sizes(**registry.data("backbones", spec.name))
    folder = str((path.parent / known.folder).resolve()) if known.folder else ""
    return replace(known, folder=folder)


def known_sizes(spec: BackboneSpec) -> Sizes:
    """Return a backbone's sizes.

    Raises:
        NotReady: nothing states them.
    """
    known = sizes(spec)
    if known is None:
        raise NotReady(
            f"backbone.path: {spec.name} needs the folder of its weights, but none is given; "
            f"name one that holds {CONFIG_FILE}"
        )
    return known


def identity(spec: BackboneSpec) -> dict[str, Any]:
    """Return what decides a backbone's features, as JSON: plug-in, weights by content, settings.

    Raises:
        UnknownName: no backbone of that name.
        NotReady: its weights are not there.
    """
    known = known_sizes(spec)
    return {
        "name": spec.name,
        "versions": registry.versions("backbones", spec.name),
        "position_embedding": spec.position_embedding,
        "files": _checksums(Path(known.folder)) if known.folder else {},
    }


def _checksums(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.glob("*")) if path.suffix in _DECIDING_ENDINGS]
    if not any(path.suffix in WEIGHTS_ENDINGS for path in files):
        raise NotReady(
            f"backbone.path: {folder} must hold a config and weights, but has no file that ends in "
            f"{', '.join(sorted(WEIGHTS_ENDINGS))}; put the weights there"
        )
    return dict(zip([path.name for path in files], file_digests(files), strict=True))


def _sizes_of_config(path: Path) -> Sizes:
    """Read the sizes out of a config as open_clip writes it; its defaults fill what is not said."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        vision = config["vision_cfg"]
        stated = [vision.get(key, 1) for key in ("patch_size", "image_size", "layers", "width")]
        if "timm_model_name" in vision or not all(isinstance(size, int) for size in stated):
            raise ValueError("it is not open_clip's own ViT for square images")
        width, head_width = vision.get("width", 768), vision.get("head_width", 64)
        return Sizes(
            patch_px=vision.get("patch_size", 16),
            image_px=vision.get("image_size", 224),
            width=width,
            depth=vision.get("layers", 12),
            heads=width // head_width,
            mlp_ratio=vision.get("mlp_ratio", 4.0),
            channels=config["embed_dim"],
            read_out="maskclip",
            source=str(path.parent),
            folder=str(path.parent.resolve()),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotReady(
            f"backbone.path: must be a folder with a readable {CONFIG_FILE}, but {path}: "
            f"{error!r}; name the folder that open_clip's `local-dir:` would take"
        ) from error
