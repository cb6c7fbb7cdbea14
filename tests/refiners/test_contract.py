"""Refiners: the contract, and one of another package with weights, features and a cost."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spar_bench.components.refiner import refiner_identity, refiner_weights
from spar_bench.components.weights import Weights
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.refiners import none
from spar_bench.refiners.base import Guidance, RefinesFeatures, RefinesScores
from spar_bench.spec.plugins import PluginSpec
from spar_bench.testing import RefinerContract
from tests.components.hub import nowhere

__all__ = ["nowhere"]

REFINER = '''
"""Scales each channel of features by weights, and doubles scores."""

from safetensors.torch import load_file

VERSION = 1
FLOPS = "2 * h * w * C"


class Refiner:
    def __init__(self, device, weights, *, path: str = "", power: float = 1.0):
        self.scale = load_file(weights.files[0], str(device))["scale"] ** power
        self.n_params = self.scale.numel()
        self.calls = []

    def features(self, features, guidance, out_hw):
        self.calls.append(("features", tuple(guidance.pixels.shape), out_hw))
        return features * self.scale[:, None, None]

    def scores(self, scores, features, guidance, out_hw):
        self.calls.append(("scores", tuple(features.shape), out_hw))
        return 2 * scores
'''
CARD = "license: MIT\nsource: https://example.org/scaled\n"


class TestNone(RefinerContract):
    @pytest.fixture
    def refiner(self) -> object:
        return none.Refiner(torch.device("cpu"), None)


def test_none_refines_nothing_and_costs_nothing() -> None:
    refiner = none.Refiner(torch.device("cpu"), None)

    assert not isinstance(refiner, RefinesFeatures | RefinesScores)
    assert refiner.n_params == 0


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A refiner by path, with the data file that says where its weights come from."""
    (tmp_path / "scaled.py").write_text(REFINER)
    (tmp_path / "scaled.yaml").write_text(CARD)
    return str(tmp_path / "scaled.py")


def write_weights(path: Path, factor: float) -> Path:
    path.parent.mkdir(exist_ok=True)
    save_file({"scale": torch.full((12,), factor)}, path)
    return path


def test_its_weights_are_found_by_name_and_are_part_of_its_identity(
    own: str, tmp_path: Path
) -> None:
    spec, place = PluginSpec(name=own), tmp_path / "weights" / "scaled.safetensors"

    identities = []
    for factor in (1.0, 3.0):
        write_weights(place, factor)
        identities.append(refiner_identity(spec))
    found = refiner_weights(spec)

    assert found is not None
    assert found.files == [place]
    assert identities[0].files.keys() == {".safetensors"}
    assert identities[0] != identities[1]
    assert identities[0].settings == {"power": 1.0}


def test_its_weights_may_lie_where_its_path_says_and_the_place_decides_nothing(
    own: str, tmp_path: Path
) -> None:
    places = [write_weights(tmp_path / name / "w.safetensors", 2.0) for name in ("a", "b")]

    one, other = (
        refiner_identity(PluginSpec(name=own, path=str(place), power=2.0)) for place in places
    )

    assert one == other
    assert one.settings == {"power": 2.0}


def test_weights_that_are_missing_are_one_line(own: str, tmp_path: Path) -> None:
    with pytest.raises(NotReady) as caught:
        refiner_identity(PluginSpec(name=own))

    assert str(caught.value) == (
        f"refiner {own}: its weights must be in {tmp_path / 'weights' / 'scaled'} or in the "
        "Hugging Face cache, but neither has weights of its name; get them from "
        "https://example.org/scaled (MIT), or name them as evaluate.refiner.path"
    )


def test_a_refiner_without_weights_needs_none() -> None:
    assert refiner_weights(PluginSpec(name="none")) is None
    assert refiner_identity(PluginSpec(name="none")).files == {}


def test_pixels_are_normalised_as_another_network_has_them() -> None:
    pixels = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    guidance = Guidance((pixels - 0.5) / 0.25, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

    found = guidance.normalised((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))

    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)]):
        assert torch.allclose(found[channel], (pixels[channel] - mean) / std, atol=1e-6)


def test_random_weights_are_asked_for_by_its_setting(own: str) -> None:
    found = refiner_weights(PluginSpec(name=own, weights="random"))

    assert found is not None
    assert found.is_random
    assert refiner_identity(PluginSpec(name=own, weights="random")).files == {"random": 0}


def test_weights_that_are_neither_found_nor_random_are_one_line(own: str) -> None:
    with pytest.raises(SparBenchError, match=r"weights: must be find or random, but got 'drawn'"):
        refiner_weights(PluginSpec(name=own, weights="drawn"))


@pytest.mark.parametrize("plugin", ["anyup", "lposs", "naf"])
def test_weights_that_a_data_file_says_nothing_about_are_one_line(
    plugin: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(f"plugin: {plugin}\n")
    mine = str(tmp_path / "mine.yaml")

    with pytest.raises(NotReady) as caught:
        refiner_identity(PluginSpec(name=mine))
    found = refiner_weights(PluginSpec(name=mine, weights="random"))

    assert str(caught.value) == (
        f"refiner {mine}: must have weights, but its data file states no source; name them as "
        "evaluate.refiner.path"
    )
    assert found == Weights(None, is_random=True)


def test_path_of_weights_may_begin_with_the_home_folder(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    place = write_weights(tmp_path / "w" / "scaled.safetensors", 2.0)

    found = refiner_weights(PluginSpec(name=own, path="~/w/scaled.safetensors"))

    assert found == Weights(place)


def test_module_that_states_its_cost_is_part_of_its_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost, stated = tmp_path / "scaled_cost.py", 'VERSION = 1\nFLOPS = "scaled_cost:flops"\n'
    (tmp_path / "plain.py").write_text(f"{stated}\n\nclass Refiner: ...\n")
    monkeypatch.syspath_prepend(tmp_path)

    identities = []
    for factor in (1, 2):
        cost.write_text(f"def flops(refined):\n    return {factor * 10} * refined.channels\n")
        identities.append(refiner_identity(PluginSpec(name=str(tmp_path / "plain.py"))))

    assert [one.sources.keys() for one in identities] == [{"plain.py", "scaled_cost"}] * 2
    assert identities[0] != identities[1]
    assert refiner_identity(PluginSpec(name="lposs_self")).sources == {}
