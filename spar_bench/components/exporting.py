"""Write a backbone as open_clip or timm reads it from a folder, for use without spar-bench."""

from pathlib import Path
from typing import Any

import open_clip
import timm
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from spar_bench.backbones.base import Backbone, Exported
from spar_bench.components.open_clip_config import stated_config, tokenizer_of
from spar_bench.components.weights import CONFIG_FILE, Weights
from spar_bench.errors import SparBenchError

_CLIP_VIT = "vit_base_patch16_clip_224"


def open_clip_folder(
    backbone: Backbone, model: nn.Module, weights: Weights, architecture: str
) -> Exported:
    """Return a whole open_clip model, with text tower and tokenizer, for `local-dir:`."""
    if weights.folder is not None and weights.has_config:
        stated = stated_config(weights.folder)
    else:
        stated = {"model_cfg": open_clip.get_model_config(architecture)}
    preprocess = {"mean": list(backbone.mean), "std": list(backbone.std)}
    tokenizer = tokenizer_of(weights, architecture)
    further = tokenizer.files if tokenizer else []
    if "hf_tokenizer_name" in stated["model_cfg"]["text_cfg"] and not further:
        raise SparBenchError(
            "--format open_clip: must have the tokenizer's files beside the weights, but "
            f"{weights.path or 'random weights'} has none; put them there, or export as timm"
        )

    def check(folder: Path, images: Tensor) -> tuple[Tensor, Tensor]:
        read = open_clip.create_model(f"local-dir:{folder}", weights_only=True).eval()
        theirs: Tensor = read.encode_image(images)
        ours: Tensor = model.encode_image(images)  # type: ignore[operator]
        return theirs, ours

    return Exported(
        CONFIG_FILE,
        {**stated, "preprocess_cfg": {**stated.get("preprocess_cfg", {}), **preprocess}},
        "open_clip_model.safetensors",
        dict(model.state_dict()),
        further,
        check,
    )


def timm_clip_folder(backbone: Backbone) -> Exported:
    """Return open_clip's own ViT as timm's, its projection as the classifier head."""
    visual: Any = backbone.visual
    sizes, block = backbone.sizes, visual.transformer.resblocks[0]
    arguments: dict[str, Any] = {
        "img_size": sizes.image_px,
        "patch_size": sizes.patch_px,
        "embed_dim": sizes.width,
        "depth": sizes.depth,
        "num_heads": sizes.heads,
        "mlp_ratio": sizes.mlp_ratio,
        "num_classes": sizes.channels,
    }
    if isinstance(block.mlp.gelu, open_clip.transformer.QuickGELU):
        arguments["act_layer"] = "quick_gelu"
    if visual.pool_type == "avg":
        arguments |= {"global_pool": "avg", "fc_norm": False}
    named = {f"visual.{name}": value for name, value in visual.state_dict().items()}
    tower = timm.create_model(_CLIP_VIT, **arguments)
    state = checkpoint_filter_fn(named, tower)
    try:
        tower.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise SparBenchError(
            "--format timm: must be a ViT that timm also has, but its weights do not fit: "
            f"{reason}; export it as open_clip"
        ) from error
    return timm_folder(backbone, _CLIP_VIT, arguments, state, visual)


def timm_folder(
    backbone: Backbone,
    architecture: str,
    arguments: dict[str, Any],
    state: dict[str, Tensor],
    tower: nn.Module,
) -> Exported:
    """Return an image tower with the timm name and arguments that it is built from."""
    config = {
        "architecture": architecture,
        "num_classes": arguments.get("num_classes", 0),
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, backbone.sizes.image_px, backbone.sizes.image_px],
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "num_classes": arguments.get("num_classes", 0),
        },
    }

    def check(folder: Path, images: Tensor) -> tuple[Tensor, Tensor]:
        read = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        return read(images), tower(images)

    return Exported("config.json", config, "model.safetensors", state, [], check)
