"""A student from a checkpoint that was trained elsewhere, such as the paper's released files.

Such a file may be a Lightning `.ckpt`, a plain `.pth` or `.pt`, or safetensors; the names of its
weights may have any prefix. Source: the released files' key prefixes, naomikombol/SPAR @0f63ff2.
"""

import json
from collections.abc import Mapping

import torch
from safetensors.torch import save
from torch import Tensor

from spar_bench.backbones.base import require_exchangeable
from spar_bench.components.students import checkpoint_path
from spar_bench.components.tensors import read_tensors
from spar_bench.errors import NotReady
from spar_bench.files import replace_bytes, replace_text
from spar_bench.run.context import Context
from spar_bench.stages import imported
from spar_bench.stages.student import CURVE_FILE, TRAINED_FILE


def make_imported(stages: list[imported.Stage], context: Context) -> list[imported.Summary]:
    """Write the weights of checkpoints that differ from the pretrained ones.

    Raises:
        NotReady: the file cannot be read, or does not hold the backbone's image tower, or its
            weights are not finite.
    """
    return [_make_imported(stage, context) for stage in stages]


def _make_imported(stage: imported.Stage, context: Context) -> imported.Summary:
    path, spec = checkpoint_path(stage.places.checkpoint), stage.places.backbone
    backbone = context.backbone(spec)
    pretrained = {name: value.cpu() for name, value in backbone.visual.state_dict().items()}
    try:
        found = require_exchangeable(backbone, spec.name).from_checkpoint(read_tensors(path))
        _require_like(pretrained, found)
    except (KeyError, ValueError) as error:
        raise NotReady(
            f"{path}: must hold the image tower of {spec.name}, but "
            f"{error.args[0]}; name the backbone that it was trained from"
        ) from error
    for name, value in found.items():
        if not value.isfinite().all():
            raise NotReady(f"{path}: weights must be finite, but {name} is not; get the file again")
    trained = {
        name: value.to(pretrained[name].dtype).contiguous()
        for name, value in found.items()
        if not torch.equal(value.to(pretrained[name].dtype), pretrained[name])
    }
    output = context.store.output(stage)
    replace_bytes(output / TRAINED_FILE, save(trained))
    replace_text(output / CURVE_FILE, json.dumps([]))
    return imported.Summary(
        trained_tensors=len(trained),
        all_tensors=len(pretrained),
        trained_params=sum(value.numel() for value in trained.values()),
        checkpoint=path.name,
        backbone=spec,
    )


def _require_like(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, value in expected.items():
        if found[name].shape != value.shape:
            shapes = f"{tuple(found[name].shape)}, not {tuple(value.shape)}"
            raise ValueError(f"{name} has shape {shapes}")
