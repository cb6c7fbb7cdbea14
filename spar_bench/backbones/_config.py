"""What open_clip's config of weights says, and whether it is the backbone's; without torch."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from spar_bench.backbones._sizes import Sizes
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
