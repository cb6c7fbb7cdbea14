"""Image towers of the named SigLIP2 models, of true size, with shapes and no values."""

import json
from functools import partial
from typing import Any
from unittest import mock

import open_clip
import torch
from torch import nn

from spar_bench import registry
from spar_bench.backbones import naflex
from spar_bench.components.backbone import card

NAMES = [name for name in registry.names("backbones") if name.startswith("siglip2-")]


def config_of(name: str) -> dict[str, Any]:
    """Return the `model_cfg` of a model: open_clip's own, or the package's."""
    found: dict[str, Any] | None = open_clip.get_model_config(card(name).model)
    return found or json.loads(naflex.CONFIG.read_text())


def hollow(name: str) -> nn.Module:
    """Build a model's image tower on the meta device; timm 1.0.17 asks for values of a linspace."""
    config, on_cpu = config_of(name), partial(torch.linspace, device="cpu")
    with torch.device("meta"), mock.patch.object(torch, "linspace", on_cpu):
        tower: nn.Module = open_clip.model._build_vision_tower(
            config["embed_dim"], config["vision_cfg"]
        )
    return tower.eval()
