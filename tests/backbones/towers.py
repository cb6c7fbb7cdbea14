"""Image towers of the named SigLIP2 models, of true size, with shapes and no values."""

import json

import open_clip
import torch
from torch import nn

from spar_bench import backbones, registry
from spar_bench.backbones import naflex

NAMES = [name for name in registry.names("backbones") if name.startswith("siglip2-")]


def hollow(name: str) -> nn.Module:
    """Build a model's image tower on the meta device."""
    model = backbones.card(name).model
    config = open_clip.get_model_config(model) or json.loads(naflex.CONFIG.read_text())
    with torch.device("meta"):
        tower: nn.Module = open_clip.model._build_vision_tower(
            config["embed_dim"], config["vision_cfg"]
        )
    return tower.eval()
