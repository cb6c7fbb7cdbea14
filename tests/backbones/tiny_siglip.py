"""SigLIP2 in miniature, with random weights: timm trunks by name, a tokenizer, folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from safetensors.torch import save_file
from timm.models.naflexvit import NaFlexVitCfg, _create_naflexvit
from timm.models.vision_transformer import _create_vision_transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PATCH_PX, IMAGE_PX, WIDTH, DEPTH, HEADS = 4, 16, 24, 3, 2
WORDS = ["<pad>", "<eos>", "<unk>", "a", "photo", "of", "car", "tree"]
SIZES = {
    "patch_px": PATCH_PX,
    "image_px": IMAGE_PX,
    "width": WIDTH,
    "depth": DEPTH,
    "heads": HEADS,
    "mlp_ratio": 4.0,
    "channels": WIDTH,
    "read_out": "attention_pool_values",
    "prefix_tokens": 0,
    "position_embedding": "size",
    "odd_sides": "pad",
}
TEXT = {
    "context_length": 8,
    "vocab_size": len(WORDS),
    "hf_tokenizer_name": "beside",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "width": 16,
    "heads": 2,
    "layers": 1,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
}


@timm.models.register_model  # type: ignore[untyped-decorator]
def tiny_siglip(pretrained: bool = False, **options: Any) -> Any:
    """A SigLIP trunk: exact GELU, as B/16 has it."""
    return _create_vision_transformer(
        "tiny_siglip",
        pretrained=pretrained,
        img_size=IMAGE_PX,
        patch_size=PATCH_PX,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        **{"class_token": False, "global_pool": "map", **options},
    )


@timm.models.register_model  # type: ignore[untyped-decorator]
def tiny_siglip_with_a_class_token(pretrained: bool = False, **options: Any) -> Any:
    """A trunk whose pooling head sees a class token too."""
    return tiny_siglip(pretrained, class_token=True, **options)


@timm.models.register_model  # type: ignore[untyped-decorator]
def tiny_naflex(pretrained: bool = False, **options: Any) -> Any:
    """A NaFlex trunk: GELU by tanh, as the published one has it."""
    config = NaFlexVitCfg(
        patch_size=PATCH_PX,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        act_layer="gelu_tanh",
        global_pool="map",
        pos_embed_interp_mode="bilinear",
        pos_embed_grid_size=(4, 4),
    )
    return _create_naflexvit("tiny_naflex", pretrained=pretrained, cfg=config, **options)


def model_config(trunk: str, **vision: Any) -> dict[str, Any]:
    """Return the `model_cfg` of a miniature."""
    stated = {"timm_model_name": trunk, "timm_pool": "map", "timm_proj": "none"}
    return {
        "embed_dim": WIDTH,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": IMAGE_PX, **stated, **vision},
        "text_cfg": TEXT,
    }


def write_folder(folder: Path, trunk: str, **vision: Any) -> Path:
    """Write what open_clip's `local-dir:` reads: config, weights drawn by name, tokenizer."""
    config = model_config(trunk, **vision)
    model = open_clip.CustomTextCLIP(**{k: v for k, v in config.items() if k != "custom_text"})
    folder.mkdir(parents=True)
    stated = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(stated))
    save_file(drawn(model.state_dict()), folder / "open_clip_model.safetensors")
    write_tokenizer(folder)
    return folder


def drawn(state: dict[str, torch.Tensor], seed: int = 0) -> dict[str, torch.Tensor]:
    """Draw weights by name, large enough that every part matters."""
    generator = np.random.default_rng(seed)
    found = {}
    for name, value in sorted(state.items()):
        noise = 0.3 * generator.standard_normal(tuple(value.shape))
        is_norm = ("norm" in name or "ln_" in name) and name.endswith("weight")
        found[name] = torch.as_tensor(noise + (1.0 if is_norm else 0.0)).float()
    return found


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of few words, as transformers saves one."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)


def write_data_file(path: Path, plugin: str, **stated: Any) -> Path:
    """Write the data file that names a miniature's plug-in and sizes."""
    path.write_text(json.dumps({"plugin": plugin, **SIZES, **stated}))  # JSON is YAML too
    return path
