"""An image tower as timm reads it from a folder by itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from spar_bench.backbones.base import Backbone, Exported


def timm_export(
    backbone: Backbone,
    architecture: str,
    arguments: Mapping[str, Any],
    state: dict[str, Tensor],
    tower: nn.Module,
) -> Exported:
    """Return an image tower with the timm name and arguments that it is built from."""
    n_classes = arguments.get("num_classes", 0)
    config = {
        "architecture": architecture,
        "num_classes": n_classes,
        "model_args": dict(arguments),
        "pretrained_cfg": {
            "input_size": [3, backbone.sizes.image_px, backbone.sizes.image_px],
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "num_classes": n_classes,
        },
    }

    def check(folder: Path, images: Tensor) -> tuple[Tensor, Tensor]:
        read = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        return read(images), tower(images)

    return Exported("config.json", config, "model.safetensors", state, [], check)
