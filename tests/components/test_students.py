"""The students in the package: found by name, whole, and changed only where they were trained."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spar_bench.backbones.patchwork import Backbone
from spar_bench.components.students import checkpoint_path, require_checkpoint, shipped_students
from spar_bench.errors import NotReady
from spar_bench.run.trainable import set_trainable
from spar_bench.spec.schema import BackboneSpec

TRAINED = {"patchwork-spar": "last_2_blocks", "patchwork-spar-all": "all"}


def test_students_of_the_package_are_found_by_name() -> None:
    assert shipped_students() == list(TRAINED)
    for name in TRAINED:
        assert checkpoint_path(name).is_file()
        require_checkpoint(name)


def test_file_of_the_same_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("patchwork-spar").touch()

    assert checkpoint_path("patchwork-spar") == Path("patchwork-spar")
    assert checkpoint_path("patchwork-spar-all").is_absolute()


@pytest.mark.parametrize("name", ["patchwork-spar.safetensors", "../patchwork-spar", "spar.ckpt"])
def test_other_names_are_paths(name: str) -> None:
    assert checkpoint_path(name) == Path(name)

    with pytest.raises(NotReady, match=r"\(patchwork-spar, patchwork-spar-all\), but .* cannot be"):
        require_checkpoint(name)


@pytest.mark.parametrize("name", TRAINED)
def test_student_is_a_tower_that_differs_in_what_was_trained(name: str) -> None:
    backbone = Backbone(BackboneSpec(name="patchwork"))
    set_trainable(backbone, TRAINED[name])
    trains = {n for n, p in backbone.visual.named_parameters() if p.requires_grad}

    tower = load_file(checkpoint_path(name))

    pretrained = backbone.visual.state_dict()
    assert tower.keys() == pretrained.keys()
    assert {weight.dtype for weight in tower.values()} == {torch.float16}
    assert {n for n, w in tower.items() if not torch.equal(w.float(), pretrained[n])} == trains
