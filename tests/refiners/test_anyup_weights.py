"""AnyUp's weights: the published names and shapes, in each form of file, and what is refused."""

import json
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spar_bench import registry
from spar_bench.components.refiner import refiner_card, refiner_identity, refiner_weights
from spar_bench.components.weights import Weights
from spar_bench.errors import NotReady
from spar_bench.refiners import anyup
from spar_bench.refiners._anyup_network import Network
from spar_bench.spec.plugins import PluginSpec
from tests.components.hub import nowhere

__all__ = ["nowhere"]

CPU = torch.device("cpu")
LIST = Path(anyup.__file__).with_name("anyup_keys.json")
State = dict[str, Tensor]


def listed() -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads(LIST.read_text(encoding="utf-8"))
    return shapes


@pytest.fixture
def state() -> State:
    """Weights of the published names and shapes."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in listed().items()}


def loaded(path: Path) -> State:
    """Return the weights that a refiner holds once it has read a file or folder."""
    refiner = anyup.Refiner(CPU, Weights(path))
    return dict(refiner._network.state_dict())


def test_the_published_list_has_73_tensors_and_878080_parameters() -> None:
    shapes = listed()

    assert len(shapes) == 73
    assert sum(map(prod, shapes.values())) == 878_080


def test_the_network_has_the_published_names_and_shapes_and_no_others() -> None:
    own = {name: list(tensor.shape) for name, tensor in Network().state_dict().items()}

    assert own == listed()
    assert anyup.Refiner(CPU, Weights(None, is_random=True)).n_params == 878_080


def test_a_plain_file_safetensors_and_a_checkpoint_of_training_are_read_alike(
    state: State, tmp_path: Path
) -> None:
    optimiser = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save(state, tmp_path / "anyup_multi_backbone.pth")
    torch.save(
        {"anyup": state, "optimizer": optimiser, "ema": {"x": torch.zeros(2)}, "step": 5},
        tmp_path / "trained.pth",
    )
    save_file(state, tmp_path / "anyup.safetensors")

    for name in ("anyup_multi_backbone.pth", "trained.pth", "anyup.safetensors"):
        found = loaded(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rope.freqs": None},
            "rope.freqs must be of shape (2, 128), but is absent; use the published weights of "
            "anyup",
        ),
        (
            {"extra.weight": torch.zeros(3)},
            "extra.weight must be absent, but is of shape (3,); use the published weights of anyup",
        ),
        (
            {"image_encoder.0.weight": torch.zeros(128, 3)},
            "image_encoder.0.weight must be of shape (128, 3, 1, 1), but is of shape (128, 3); use "
            "the published weights of anyup",
        ),
    ],
)
def test_a_file_of_other_tensors_is_refused_when_it_is_loaded_and_by_its_header_before(
    state: State, tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    changed = {name: one for name, one in {**state, **change}.items() if one is not None}
    header, plain = tmp_path / "w.safetensors", tmp_path / "w.pth"
    save_file(changed, header)
    torch.save(changed, plain)

    with pytest.raises(NotReady) as before:
        refiner_identity(PluginSpec(name="anyup", path=str(header)))
    refusals = [before.value]
    for path in (header, plain):
        with pytest.raises(NotReady) as caught:
            loaded(path)
        refusals.append(caught.value)

    assert [str(one) for one in refusals] == [
        f"{path}: {message}" for path in (header, header, plain)
    ]


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_file_that_is_cut_off_is_refused_before_it_is_loaded(
    state: State, tmp_path: Path, ending: str
) -> None:
    whole, cut = tmp_path / f"whole{ending}", tmp_path / f"cut{ending}"
    if ending == ".pth":
        torch.save(state, whole)
    else:
        save_file(state, whole)
    cut.write_bytes(whole.read_bytes()[:-1000])

    with pytest.raises(NotReady, match="must be a complete file of weights, but is empty, cut"):
        refiner_identity(PluginSpec(name="anyup", path=str(cut)))


def test_reading_weights_leaves_the_random_numbers_of_others_alone(
    state: State, tmp_path: Path
) -> None:
    save_file(state, tmp_path / "w.safetensors")
    torch.manual_seed(3)
    expected = torch.rand(5)
    torch.manual_seed(3)

    loaded(tmp_path / "w.safetensors")

    assert torch.equal(torch.rand(5), expected)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"anyup": Touch()}, tmp_path / "w.pth")

    with pytest.raises(NotReady, match="cannot be read without running what it holds"):
        loaded(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_not_finite_are_refused(state: State, tmp_path: Path) -> None:
    state["rope.freqs"][1, 5] = torch.nan
    save_file(state, tmp_path / "w.safetensors")

    with pytest.raises(NotReady, match=r"w\.safetensors: rope\.freqs must be finite, but is not;"):
        loaded(tmp_path / "w.safetensors")


def test_a_folder_with_both_checkpoints_is_refused(state: State, tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "anyup"
    folder.mkdir(parents=True)
    for name in ("a.safetensors", "b.safetensors"):
        save_file(state, folder / name)

    with pytest.raises(NotReady) as caught:
        refiner_identity(PluginSpec(name="anyup"))

    assert str(caught.value) == (
        f"{folder}: must hold one file of weights, but has a.safetensors, b.safetensors; keep one "
        "there, or name it"
    )


def test_missing_weights_say_where_to_get_them_and_whom_to_credit(tmp_path: Path) -> None:
    with pytest.raises(NotReady) as caught:
        refiner_identity(PluginSpec(name="anyup"))

    assert "\n" not in str(caught.value)
    assert "releases/download/checkpoint_v2/anyup_multi_backbone.pth (CC-BY-4.0; credit T. " in str(
        caught.value
    )


def test_the_paper_s_file_is_found_under_its_published_name(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights" / "anyup_paper.pth"
    path.parent.mkdir()
    torch.save(state, path)

    found = refiner_weights(PluginSpec(name="anyup_paper"))

    assert found is not None
    assert found.files == [path]
    assert registry.plugin("refiners", "anyup_paper") == "anyup"


@pytest.mark.parametrize("name", ["anyup", "anyup_paper"])
def test_each_checkpoint_has_a_card_with_licence_and_attribution(name: str) -> None:
    card = refiner_card(name)

    assert card.license == "CC-BY-4.0"
    for part in ("Wimmer", "Lenssen", "AnyUp: Universal Feature Upsampling", "reimplemented"):
        assert part in card.terms


def test_settings_and_random_weights_are_part_of_its_identity() -> None:
    found = refiner_identity(PluginSpec(name="anyup", weights="random", of="scores"))

    assert found.files == {"random": 0}
    assert found.settings == {"weights": "random", "of": "scores", "cell_px": 1}
