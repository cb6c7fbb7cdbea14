"""What open_clip's config of weights says, and whether it is the backbone's; without torch."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from spar_bench.backbones._sizes import Sizes, TextSizes
from spar_bench.backbones._weights import CONFIG_FILE, Weights
from spar_bench.errors import NotReady


def stated_config(folder: Path) -> dict[str, Any]:
    """Read a folder's `open_clip_config.json`.

    Raises:
        OSError, ValueError: it is missing, or not JSON.
    """
    read: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return read


def config_by_name(architecture: str) -> dict[str, Any] | None:
    """Return the config that open_clip, or this package, has of an architecture, or None.

    open_clip is not imported.
    """
    package = importlib.util.find_spec("open_clip")
    roots = (package and package.submodule_search_locations) or []
    folders = [*(Path(root) / "model_configs" for root in roots), Path(__file__).parent]
    for folder in folders:
        path = folder / f"{architecture.replace('/', '-')}.json"
        if path.is_file():
            read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return read
    return None


def model_config(weights: Weights, architecture: str) -> dict[str, Any]:
    """Return the `model_cfg` that weights are read with: beside them, else by name; {} if none is.

    Raises:
        NotReady: the config cannot be read.
    """
    if weights.has_config:
        return stated_part(weights, "model_cfg")
    return config_by_name(architecture) or {}


def stated_preprocessing(weights: Weights) -> dict[str, Any]:
    """Return what the config beside weights says about preprocessing; nothing without one.

    Raises:
        NotReady: the config cannot be read.
    """
    return stated_part(weights, "preprocess_cfg")


def require_architecture(weights: Weights, sizes: Sizes) -> None:
    """Refuse weights whose config plainly states other sizes than the backbone's.

    What it leaves out, or leaves to the name of a timm model, is checked once the model is loaded.
    A NaFlex reads images of any size, whatever its config says.

    Raises:
        NotReady: a size differs, or the config cannot be read.
    """
    stated = {"embed_dim": stated_part(weights, "model_cfg").get("embed_dim")}
    vision = stated_part(weights, "model_cfg", "vision_cfg")
    stated |= {key: vision.get(key) for key in ("image_size", "patch_size")}
    known = {"embed_dim": sizes.channels, "patch_size": sizes.patch_px}
    if sizes.token_budget is None:
        known["image_size"] = sizes.image_px
    for key, value in known.items():
        if isinstance(stated[key], int) and stated[key] != value:
            raise NotReady(
                f"{weights.path}/{CONFIG_FILE}: {key} must be {value}, the backbone's, but is "
                f"{stated[key]}; name other weights, or the backbone they belong to"
            )


def stated_part(weights: Weights, *keys: str) -> dict[str, Any]:
    """Return a part of the config beside weights; nothing without one."""
    if weights.folder is None or not weights.has_config:
        return {}
    try:
        part = stated_config(weights.folder)
        for key in keys:
            part = part.get(key, {})
        return dict(part)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise NotReady(
            f"{weights.folder / CONFIG_FILE}: must be a config as open_clip writes it, but cannot "
            f"be read: {error!r}; get it again"
        ) from error


def sizes_of_config(folder: Path) -> Sizes:
    """Read the sizes from a config as open_clip writes it; its defaults fill in what is missing.

    Raises:
        NotReady: the folder has no config that can be read, or it is not of open_clip's own ViT.
    """
    try:
        config = stated_config(folder)["model_cfg"]
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
        )
    except (OSError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise NotReady(
            f"backbone.path: must be a folder with a readable {CONFIG_FILE}, but "
            f"{folder / CONFIG_FILE}: {error!r}; name the folder that open_clip's `local-dir:` "
            "would take"
        ) from error


def text_sizes_of_config(folder: Path) -> TextSizes | None:
    """Read the sizes of a text tower from a config, or return None where it does not state them."""
    try:
        text = stated_config(folder)["model_cfg"]["text_cfg"]
        return TextSizes(
            width=text["width"],
            depth=text["layers"],
            context=text["context_length"],
            mlp_ratio=text.get("mlp_ratio", 4.0),
        )
    except (OSError, LookupError, ValueError, TypeError):
        return None
