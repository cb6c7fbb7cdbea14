"""What open_clip's config of weights says, and whether it is the backbone's; without torch."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from spar_bench.backbones._models import config_by_name
from spar_bench.backbones._plainly import plainly
from spar_bench.backbones._sizes import Sizes, TextSizes
from spar_bench.backbones._weights import CONFIG_FILE, Weights
from spar_bench.errors import NotReady

_FIELDS = {
    "embed_dim": "channels",
    "image_size": "image_px",
    "patch_size": "patch_px",
    "width": "width",
    "layers": "depth",
}
"""Keys of open_clip's configs, to our names of the sizes."""


def stated_config(folder: Path) -> dict[str, Any]:
    """Read a folder's `open_clip_config.json`.

    Raises:
        OSError, ValueError: it is missing, or not JSON.
    """
    read: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return read


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


def require_architecture(weights: Weights, sizes: Sizes, model: str, place: str) -> None:
    """Refuse weights whose config, or the config of their model, plainly states other sizes.

    What it leaves out, or leaves to the name of a timm model, is checked once the model is loaded.
    A NaFlex reads images of any size, whatever its config says.

    Args:
        weights: Those to load, or random ones.
        sizes: The backbone's.
        model: The name of open_clip's model, for weights without a config; "" if it has none.
        place: The data file that states the name and the sizes.

    Raises:
        NotReady: a size differs, or the config cannot be read.
    """
    config = model_config(weights, model)
    vision = config.get("vision_cfg", {})
    if weights.has_config:
        vision = stated_part(weights, "model_cfg", "vision_cfg")
    stated = {**vision, "embed_dim": config.get("embed_dim")}
    for key, field in _FIELDS.items():
        size, own = stated.get(key), getattr(sizes, field)
        if not isinstance(size, int) or size == own:
            continue
        if key == "image_size" and sizes.token_budget is not None:
            continue
        if weights.has_config:
            raise NotReady(
                f"{weights.path}/{CONFIG_FILE}: {key} must be {own}, the backbone's, but is "
                f"{size}; name other weights, or the backbone they belong to"
            )
        raise NotReady(
            f"{place}: {field}: must be {size}, as in open_clip's {model}, but is {own}; correct "
            "it, or name the model that it belongs to"
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
            f"{weights.folder / CONFIG_FILE}: must be a config as open_clip writes it, but "
            f"{plainly(error)}; get it again"
        ) from error


def sizes_of_config(folder: Path) -> Sizes:
    """Read the sizes from a config as open_clip writes it; its defaults fill in what is missing.

    Raises:
        NotReady: the folder has no config that can be read, or it is not of open_clip's own ViT.
    """
    try:
        config = stated_config(folder)["model_cfg"]
        vision = config["vision_cfg"]
        numbers = [vision.get(key, 1) for key in ("patch_size", "image_size", "layers", "width")]
        if "timm_model_name" in vision or not all(isinstance(size, int) for size in numbers):
            raise ValueError("is not open_clip's own ViT for square images")
        width, head_width = vision.get("width", 768), vision.get("head_width", 64)
        stated = {
            "patch_px": vision.get("patch_size", 16),
            "image_px": vision.get("image_size", 224),
            "width": width,
            "depth": vision.get("layers", 12),
            "heads": width // head_width,
            "mlp_ratio": vision.get("mlp_ratio", 4.0),
            "channels": config["embed_dim"],
            "read_out": "maskclip",
        }
        return TypeAdapter(Sizes).validate_python(stated)
    except (OSError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise NotReady(
            f"backbone.path: must be a folder with a readable {CONFIG_FILE}, but "
            f"{_fault(folder, error)}; name the folder that open_clip's `local-dir:` would take"
        ) from error


def _fault(folder: Path, error: Exception) -> str:
    """Say what is wrong with a folder, or else with the config in it."""
    if isinstance(error, NotADirectoryError):
        return f"{folder} is a file"
    if isinstance(error, FileNotFoundError):
        return f"{folder} has none" if folder.is_dir() else f"{folder} does not exist"
    return f"{folder / CONFIG_FILE} {plainly(error)}"


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
