"""The backbones: one plug-in a file, and beside it a data file with its sizes, read without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from spar_bench import registry
from spar_bench.errors import NotReady
from spar_bench.spec.schema import BackboneSpec

CONFIG_FILE = "open_clip_config.json"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a plan needs to know of a backbone: the shapes that decide windows, FLOPs and bytes."""

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

    def grid_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the patch grid of an image; a remainder that fills no patch is dropped."""
        return image_hw[0] // self.patch_px, image_hw[1] // self.patch_px


def sizes(spec: BackboneSpec) -> Sizes | None:
    """Return a backbone's sizes, or None where no data file or config states them.

    Raises:
        UnknownName: no backbone of that name.
        NotReady: the folder of `path` has no readable config.
    """
    source = registry.source("backbones", spec.name)
    if spec.path is not None:
        return _sizes_of_config(Path(spec.path) / CONFIG_FILE)
    data = source.with_suffix(".yaml")
    if not data.exists():
        return None
    return Sizes(**YAML(typ="safe").load(data))


def _sizes_of_config(path: Path) -> Sizes:
    """Read the sizes out of a config as open_clip writes it; its defaults fill what is not said."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        vision = config["vision_cfg"]
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
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotReady(
            f"backbone.path: must be a folder with a readable {CONFIG_FILE}, but {path}: {error!r}; "
            "name the folder that open_clip's `local-dir:` would take"
        ) from error
