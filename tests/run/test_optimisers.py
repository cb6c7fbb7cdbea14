"""Which optimiser trains which weights."""

from pathlib import Path

import pytest
import torch

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.errors import SpecError
from spar_bench.run.muon import Muon
from spar_bench.run.optimisers import optimisers_of
from spar_bench.run.trainable import set_trainable
from spar_bench.run.training import Training, learning_rate_factor
from spar_bench.spec.schema import BackboneSpec, StudentSpec
from tests.run.conftest import clip

__all__ = ["clip"]

MATRICES = ("in_proj_weight", "out_proj.weight", "c_fc.weight", "c_proj.weight")


@pytest.fixture
def backbone(clip: Path) -> OpenClip:
    """Return a small backbone."""
    return OpenClip(BackboneSpec(name="openclip", path=str(clip)))


@pytest.mark.parametrize("trainable", ["all", "last_1_blocks", "attention_of_last_2_blocks"])
def test_muon_has_the_matrices_of_blocks_and_adamw_all_else(
    backbone: OpenClip, trainable: str
) -> None:
    recipe = StudentSpec(optimiser="muon", trainable=trainable, weight_decay=0.1)
    parameters = set_trainable(backbone, trainable)

    found = optimisers_of(recipe, backbone, parameters)

    names = {id(one): name for name, one in backbone.visual.named_parameters()}
    trained = {name: [names[id(p)] for g in o.param_groups for p in g["params"]]
               for name, o in found.items()}  # fmt: skip
    expected = [names[id(one)] for one in parameters]
    is_matrix = {name: "resblocks" in name and name.endswith(MATRICES) for name in expected}
    assert trained["muon"] == [name for name in expected if is_matrix[name]]
    assert trained["optimiser"] == [name for name in expected if not is_matrix[name]]
    assert isinstance(found["muon"], Muon)
    assert isinstance(found["optimiser"], torch.optim.AdamW)
    assert {g["weight_decay"] for o in found.values() for g in o.param_groups} == {0.1}


def test_both_follow_one_schedule(backbone: OpenClip) -> None:
    recipe = StudentSpec(optimiser="muon", trainable="all", epochs=3, schedule="one_cycle")
    run = Training(backbone, recipe, seed=0, n_images=4)

    for step in range(run.n_steps):
        run.update()
        expected = recipe.learning_rate * learning_rate_factor("one_cycle", step, run.n_steps)
        rates = {g["lr"] for o in run.optimisers.values() for g in o.param_groups}
        assert rates == {expected}


def test_muon_without_a_matrix_of_a_block_is_refused(backbone: OpenClip) -> None:
    recipe = StudentSpec(optimiser="muon")

    with pytest.raises(SpecError, match="must be adamw or sgd where last_2_blocks has no matrix"):
        optimisers_of(recipe, backbone, backbone.parts().patch_embedding)
