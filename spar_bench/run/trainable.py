"""Which parameters a student trains: the same names on every backbone, never silently none."""

from torch import nn

from spar_bench.backbones.base import Backbone
from spar_bench.errors import SpecError
from spar_bench.values import parse_trainable


def set_trainable(backbone: Backbone, trainable: str) -> list[nn.Parameter]:
    """Make only the named part of the image tower trainable, and return its parameters.

    Raises:
        SpecError: the part matches no parameter, or counts more blocks than there are.
    """
    parts, asked = backbone.parts(), parse_trainable(trainable)
    backbone.visual.requires_grad_(False)
    if asked.n_blocks > len(parts.blocks):
        raise SpecError(
            f"student.trainable: must name at most {len(parts.blocks)} blocks of this backbone, "
            f"but got {trainable}; use last_{len(parts.blocks)}_blocks or fewer"
        )
    if asked.part == "all":
        chosen = list(backbone.visual.parameters())
    elif asked.part == "position_embedding":
        chosen = parts.position_embedding
    elif asked.part == "patch_embedding":
        chosen = parts.patch_embedding
    else:
        blocks: list[list[nn.Parameter]] = getattr(parts, asked.part)
        chosen = [parameter for block in blocks[-asked.n_blocks :] for parameter in block]
    if not chosen:
        raise SpecError(
            f"student.trainable: must match parameters of the backbone, but {trainable} matches "
            "none; choose another part"
        )
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen
