"""The optimisers of recipes: of a student one or two, of a linear probe one."""

from typing import assert_never

import torch
from torch import nn

from spar_bench.backbones.base import Backbone
from spar_bench.errors import SpecError
from spar_bench.run.muon import Muon
from spar_bench.spec.schema import ClassifierSpec, StudentSpec
from spar_bench.values import LinearOptimiser

Recipe = StudentSpec | ClassifierSpec


def optimisers_of(
    recipe: StudentSpec, backbone: Backbone, parameters: list[nn.Parameter]
) -> dict[str, torch.optim.Optimizer]:
    """Return the optimisers of a student by name, at the peak of its schedule.

    Muon is for the matrices of blocks, in which queries, keys and values may be one; what else
    trains is AdamW's, at the same learning rate. Resume state has the names.

    Raises:
        SpecError: Muon is asked for, but no block that trains has a matrix.
    """
    if recipe.optimiser != "muon":
        return {"optimiser": _plain(recipe, recipe.optimiser, parameters)}
    of_blocks = {id(one) for block in backbone.parts().blocks for one in block if one.ndim == 2}
    matrices = [one for one in parameters if id(one) in of_blocks]
    others = [one for one in parameters if id(one) not in of_blocks]
    if not matrices:
        raise SpecError(
            f"student.optimiser: must be adamw or sgd where {recipe.trainable} has no matrix of a "
            "block, but got muon; use adamw"
        )
    rate, decay = recipe.learning_rate, recipe.weight_decay
    optimisers: dict[str, torch.optim.Optimizer] = {
        "muon": Muon(matrices, lr=rate, weight_decay=decay)
    }
    if others:
        optimisers["optimiser"] = _plain(recipe, "adamw", others)
    return optimisers


def optimiser_of(recipe: ClassifierSpec, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser of a linear probe, at the peak of its schedule."""
    return _plain(recipe, recipe.optimiser, parameters)


def _plain(
    recipe: Recipe, name: LinearOptimiser, parameters: list[nn.Parameter]
) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    match name:
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=decay)
        case _:
            assert_never(name)
