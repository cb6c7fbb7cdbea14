"""AnyUp's smaller network: its weights in the package, its width, its numbers and its cost."""

from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spar_bench.components.header import header_shapes
from spar_bench.components.refiner import (
    RefinedSizes,
    refiner_card,
    refiner_identity,
    refiner_weights,
)
from spar_bench.components.weights import Weights
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.refiners import _anyup_cost, anyup_patchwork
from spar_bench.refiners._anyup_network import Network
from spar_bench.refiners.base import Guidance, RefinesFeatures, RefinesScores
from spar_bench.spec.plugins import PluginSpec
from spar_bench.testing import RefinerContract
from tests.refiners import anyup_reference as reference

CPU = torch.device("cpu")
SPEC = PluginSpec(name="anyup_patchwork")


def shipped() -> Weights:
    found = refiner_weights(SPEC)
    assert found is not None
    return found


def state() -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(shipped().files[0])
    return tensors


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def guidance(height: int, width: int) -> Guidance:
    return Guidance(drawn(3, height, width, seed=1), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


class TestOfFeatures(RefinerContract):
    @pytest.fixture
    def refiner(self) -> object:
        return anyup_patchwork.Refiner(CPU, shipped())


class TestOfScores(RefinerContract):
    @pytest.fixture
    def refiner(self) -> object:
        return anyup_patchwork.Refiner(CPU, shipped(), of="scores", cell_px=2)


def test_its_weights_are_in_the_package_in_half_precision_and_below_a_megabyte() -> None:
    [path] = shipped().files

    assert Path(anyup_patchwork.__file__).parents[1] in path.parents
    assert {tensor.dtype for tensor in state().values()} == {torch.float16}
    assert path.stat().st_size < 1_000_000


def test_its_network_is_half_as_wide_as_the_published_one_and_has_the_same_names() -> None:
    wide, narrow = (
        {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        for network in (Network(), Network(64))
    )

    refiner = anyup_patchwork.Refiner(CPU, Weights(None, is_random=True))

    assert narrow.keys() == wide.keys()
    assert all(
        tuple(size // 2 if size >= 128 else size for size in wide[name]) == narrow[name]
        for name in wide
    )
    assert header_shapes(shipped().files[0]) == narrow
    assert refiner.n_params == sum(map(prod, narrow.values()))


def test_it_computes_with_the_shipped_weights() -> None:
    refiner = anyup_patchwork.Refiner(CPU, shipped())

    held = refiner._network.state_dict()

    assert all(torch.equal(held[name], weight.float()) for name, weight in state().items())


@pytest.mark.parametrize("cell_px", [1, 3])
def test_features_are_those_of_the_full_computation_in_float64(cell_px: int) -> None:
    features, seen = drawn(11, 5, 7), guidance(40, 56)

    refiner = anyup_patchwork.Refiner(CPU, shipped(), cell_px=cell_px)
    assert isinstance(refiner, RefinesFeatures)
    refined = refiner.features(features, seen, (40, 56))

    doubles = {name: weight.double().numpy() for name, weight in state().items()}
    cells_hw = -(-40 // cell_px), -(-56 // cell_px)
    values, image = features.double().numpy(), seen.pixels.double().numpy()
    wanted = reference.upsample(doubles, values, values, image, cells_hw)
    assert refined.shape == wanted.shape
    assert np.abs(refined.numpy() - wanted).max() / np.abs(wanted).max() < 1e-4


@pytest.mark.parametrize(("chunk_px", "tile_patches"), [(100, 1), (2**17, 99)])
def test_chunks_and_tiles_of_any_size_give_the_same(chunk_px: int, tile_patches: int) -> None:
    features, image = drawn(7, 6, 9).double(), guidance(24, 36).pixels.double()
    whole, parted = Network(64), Network(64, chunk_px=chunk_px, tile_patches=tile_patches)
    for network in (whole, parted):
        network.double().load_state_dict(state())

    one, other = (network(features, features, image, (24, 36)) for network in (whole, parted))

    assert (one - other).abs().max() < 1e-10


def test_an_object_has_the_one_hook_that_its_settings_ask_for() -> None:
    before, after = (
        anyup_patchwork.Refiner(CPU, shipped(), of=of) for of in ("features", "scores")
    )

    assert isinstance(before, RefinesFeatures)
    assert not isinstance(before, RefinesScores)
    assert isinstance(after, RefinesScores)
    assert not isinstance(after, RefinesFeatures)


@pytest.mark.parametrize("of", ["features", "scores"])
@pytest.mark.parametrize("cell_px", [1, 2])
def test_stated_cost_is_that_of_torch_s_counter(of: str, cell_px: int) -> None:
    refiner = anyup_patchwork.Refiner(CPU, shipped(), of=of, cell_px=cell_px)
    features, queries, seen = drawn(24, 9, 14), drawn(5, 24), guidance(72, 112)

    with FlopCounterMode(display=False) as counter:
        if isinstance(refiner, RefinesFeatures):
            refined = refiner.features(features, seen, (70, 110))
            _ = torch.mm(queries, refined.flatten(1))
            on_grid = 2 * 5 * 24 * 9 * 14
        else:
            assert isinstance(refiner, RefinesScores)
            refiner.scores(drawn(5, 9, 14), features, seen, (70, 110))
            on_grid = 0
    sizes = RefinedSizes(24, 5, (9, 14), (72, 112), (70, 110))
    stated = _anyup_cost.flops_patchwork(sizes, of=of, cell_px=cell_px, weights="find", path="")

    assert stated == pytest.approx(counter.get_total_flops() - on_grid, rel=2e-2)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(SparBenchError, match=r"of: must be features or scores, but got 'both'"):
        anyup_patchwork.Refiner(CPU, shipped(), of="both")


def test_the_published_weights_are_not_its_own(tmp_path: Path) -> None:
    torch.save(Network().state_dict(), tmp_path / "anyup_paper.pth")

    with pytest.raises(NotReady, match=r"must be of shape .* published weights of anyup_patchwork"):
        anyup_patchwork.Refiner(CPU, Weights(tmp_path / "anyup_paper.pth"))


def test_it_builds_on_anyup_and_its_weights_are_part_of_its_identity() -> None:
    identity = refiner_identity(SPEC)

    assert identity.versions == {"anyup_patchwork": 1, "anyup": 1}
    assert identity.files.keys() == {"anyup_patchwork.safetensors"}
    assert identity.settings == {"weights": "find", "of": "features", "cell_px": 1}


def test_its_card_has_our_licence_and_credits_the_architecture() -> None:
    card = refiner_card("anyup_patchwork")

    assert card.license == "Apache-2.0"
    assert "Wimmer" in card.terms
    assert "trained here" in card.terms
