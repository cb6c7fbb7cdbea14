"""NAF against plain loops in double precision; its weights, sizes, memory and cost."""

import json
import re
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spar_bench.components.refiner import (
    RefinedSizes,
    refiner_card,
    refiner_identity,
    refiner_weights,
)
from spar_bench.components.weights import Weights
from spar_bench.errors import NotReady, SparBenchError
from spar_bench.refiners import _naf, naf
from spar_bench.refiners._naf_cost import flops
from spar_bench.refiners.base import Guidance, RefinesFeatures
from spar_bench.run.context import build_refiner
from spar_bench.run.memory import MIB, peak_mib
from spar_bench.spec.plugins import PluginSpec
from spar_bench.testing import RefinerContract
from tests.components.hub import nowhere
from tests.refiners import naf_by_hand

__all__ = ["nowhere"]

CPU = torch.device("cpu")
KEYS = json.loads(Path(naf.__file__).with_name("naf_keys.json").read_text(encoding="utf-8"))
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TestNaf(RefinerContract):
    @pytest.fixture
    def channels(self) -> int:
        return 8

    @pytest.fixture
    def refiner(self) -> object:
        return naf.Refiner(CPU, Weights(None, is_random=True))


def drawn(seed: int = 0) -> dict[str, Tensor]:
    """Draw weights under the published names, large enough for attention to be sharp."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in KEYS.items():
        scale = 2.0 / prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.5
        weights[name] = scale * torch.randn(shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            weights[name] += 1
    weights["image_encoder.rope.periods"] = torch.logspace(0, 2, 16)
    return weights


def published(folder: Path, weights: dict[str, Tensor]) -> Weights:
    save_file(weights, folder / "naf.safetensors")
    return Weights(folder / "naf.safetensors")


def inputs(grid_hw: tuple[int, int], patch_px: int, channels: int) -> tuple[Tensor, Guidance]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(channels, *grid_hw, generator=generator)
    height, width = (patch_px * n for n in grid_hw)
    pixels = torch.randn(3, height, width, generator=generator)
    return features, Guidance(pixels, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))


@pytest.mark.parametrize(
    ("grid_hw", "patch_px", "cell_px"),
    [((10, 12), 4, 1), ((11, 9), 4, 2), ((9, 10), 3, 3), ((3, 5), 4, 1), ((2, 11), 8, 4)],
)
def test_features_are_those_of_plain_loops(
    tmp_path: Path, grid_hw: tuple[int, int], patch_px: int, cell_px: int
) -> None:
    weights = drawn()
    features, guidance = inputs(grid_hw, patch_px, channels=12)
    seen = guidance.normalised(*IMAGENET).double().permute(1, 2, 0).numpy()
    by_hand = naf_by_hand.naf(
        {name: tensor.double().numpy() for name, tensor in weights.items()},
        seen,
        features.double().permute(1, 2, 0).numpy(),
        [side * patch_px // cell_px for side in grid_hw],
    )

    refined = naf.Refiner(CPU, published(tmp_path, weights), cell_px=cell_px).features(
        features, guidance, (17, 19)
    )

    wanted = torch.from_numpy(by_hand).permute(2, 0, 1)
    assert refined.shape == wanted.shape
    assert (refined - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_attention_of_the_drawn_weights_is_sharp_enough_to_tell(tmp_path: Path) -> None:
    features, guidance = inputs((10, 12), 4, channels=8)

    refined = naf.Refiner(CPU, published(tmp_path, drawn())).features(features, guidance, (1, 1))

    assert refined.std() > 0.3 * features.std()  # of 81 alike, it would be a ninth
    assert refined.abs().max() <= features.abs().max()


@pytest.mark.parametrize("tile_bytes", [1, 2**20])
def test_tiles_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile_bytes: int
) -> None:
    features, guidance = inputs((10, 12), 4, channels=8)
    refiner = naf.Refiner(CPU, published(tmp_path, drawn()))
    whole = refiner.features(features, guidance, (1, 1))

    monkeypatch.setattr(_naf, "TILE_BYTES", tile_bytes)
    tiled = refiner.features(features, guidance, (1, 1))

    assert torch.allclose(tiled, whole, rtol=0, atol=2e-6)


@pytest.mark.parametrize("cell_px", [1, 4])
def test_memory_stays_within_the_stated_bound(
    monkeypatch: pytest.MonkeyPatch, cell_px: int
) -> None:
    monkeypatch.setattr(_naf, "TILE_BYTES", 2 * MIB)
    features, guidance = inputs((12, 16), 16, channels=64)
    refiner = naf.Refiner(CPU, Weights(None, is_random=True), cell_px=cell_px)
    n_pixels = guidance.pixels[0].numel()

    peak = peak_mib(lambda: refiner.features(features, guidance, (1, 1)), CPU, 0)

    output_mib = 4 * 64 * n_pixels / cell_px**2 / MIB
    assert 2048 * n_pixels / MIB < peak - output_mib < 3072 * n_pixels / MIB + 2


@pytest.mark.parametrize("tile_mib", [1, 4])
def test_attention_takes_no_more_than_a_tile(
    monkeypatch: pytest.MonkeyPatch, tile_mib: int
) -> None:
    monkeypatch.setattr(_naf, "TILE_BYTES", tile_mib * MIB)
    queries, keys = torch.randn(256, 96, 160), torch.randn(256, 12, 20)
    features, output_mib = torch.randn(64, 12, 20), 4 * 64 * 96 * 160 / MIB

    peak = peak_mib(lambda: _naf.mixed(queries, keys, features), CPU, 0)

    indices_mib = 8 * 12 * 20 * 81 / MIB
    assert 0.4 * tile_mib < peak - output_mib < tile_mib + 3 * indices_mib


def test_features_in_half_precision_are_mixed_in_float32() -> None:
    features, guidance = inputs((4, 5), 4, channels=8)
    refiner = naf.Refiner(CPU, Weights(None, is_random=True))

    halves, wanted = (
        refiner.features(maps, guidance, (1, 1))
        for maps in (features.bfloat16(), features.bfloat16().float())
    )

    assert halves.dtype == torch.float32
    assert torch.equal(halves, wanted)


def test_cost_is_that_of_the_counter_and_of_further_cosines() -> None:
    grid_hw, patch_px = (10, 12), 4
    features, guidance = inputs(grid_hw, patch_px, channels=16)
    refiner = naf.Refiner(CPU, Weights(None, is_random=True), cell_px=2)
    with FlopCounterMode(display=False) as counter:
        refined = refiner.features(features, guidance, (1, 1))
        torch.randn(5, 16) @ refined.flatten(1)
    sizes = RefinedSizes(16, 5, grid_hw, (40, 48), (1, 1))

    stated = flops(sizes, path="", weights="find", cell_px=2)

    on_patches = 2 * 10 * 12 * 16 * 5
    assert stated == pytest.approx(counter.get_total_flops() - on_patches, rel=0.02)


def test_names_and_shapes_are_the_published_ones() -> None:
    own = {
        name: list(tensor.shape)
        for name, tensor in _naf.load(Weights(None, is_random=True)).state_dict().items()
    }

    assert own == KEYS
    assert len(KEYS) == 37
    assert sum(map(prod, KEYS.values())) == 662_544


def test_it_has_the_weights_and_not_the_periods_as_parameters() -> None:
    assert naf.Refiner(CPU, Weights(None, is_random=True)).n_params == 662_528


def test_random_weights_are_those_of_their_seed() -> None:
    features, guidance = inputs((4, 5), 4, channels=4)

    first, again, other = (
        naf.Refiner(CPU, Weights(None, is_random=True, seed=seed)).features(
            features, guidance, (1, 1)
        )
        for seed in (0, 0, 1)
    )

    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-4)


def test_file_as_torch_saves_it_is_read(tmp_path: Path) -> None:
    torch.save(drawn(), tmp_path / "naf_release.pth")
    features, guidance = inputs((4, 5), 4, channels=4)
    found = refiner_weights(PluginSpec(name="naf", path=str(tmp_path / "naf_release.pth")))
    assert found is not None

    refined, wanted = (
        naf.Refiner(CPU, weights).features(features, guidance, (1, 1))
        for weights in (found, published(tmp_path, drawn()))
    )

    assert torch.equal(refined, wanted)


def test_weights_that_are_missing_say_where_to_get_them_under_which_licence() -> None:
    with pytest.raises(NotReady, match=r"from https://github.com/valeoai/NAF.*\(Apache-2.0\)"):
        refiner_weights(PluginSpec(name="naf"))

    assert refiner_card("naf").license == "Apache-2.0"


PIXELS = "image_encoder.encoder.0.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({PIXELS: None}, f"{PIXELS} must be of shape (128, 3, 1, 1), but is absent"),
        (
            {PIXELS: torch.zeros(128, 3)},
            f"{PIXELS} must be of shape (128, 3, 1, 1), but is of shape (128, 3)",
        ),
        ({"rope.freqs": torch.zeros(2)}, "rope.freqs must be absent, but is of shape (2,)"),
    ],
)
def test_other_weights_are_refused_in_one_line(
    tmp_path: Path, change: dict[str, Tensor | None], says: str
) -> None:
    weights = {name: tensor for name, tensor in (drawn() | change).items() if tensor is not None}

    with pytest.raises(NotReady) as loading:
        naf.Refiner(CPU, published(tmp_path, weights))
    place = tmp_path / "naf.safetensors"
    with pytest.raises(NotReady) as before:
        refiner_identity(PluginSpec(name="naf", path=str(place)))

    line = f"{place}: {says}; use the published weights of naf"
    assert str(loading.value) == str(before.value) == line


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = drawn()
    weights[PIXELS][1, 2] = torch.inf

    with pytest.raises(NotReady, match=f"{re.escape(PIXELS)} must be finite, but is not; get it"):
        naf.Refiner(CPU, published(tmp_path, weights))


def test_folder_with_two_files_of_weights_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": torch.zeros(2)}, tmp_path / f"{name}.safetensors")

    with pytest.raises(NotReady, match=r"must hold one file of weights, but has a\.safetensors, b"):
        naf.Refiner(CPU, Weights(tmp_path))


@pytest.mark.parametrize(
    ("patch_px", "cell_px", "use"), [(16, 3, "1, 2, 4"), (16, 8, "1, 2, 4"), (14, 0, "1, 2")]
)
def test_cells_that_do_not_divide_a_patch_are_refused_before_any_work(
    patch_px: int, cell_px: int, use: str
) -> None:
    features, guidance = inputs((2, 3), patch_px, channels=4)
    refiner = naf.Refiner(CPU, Weights(None, is_random=True), cell_px=cell_px)
    sizes = RefinedSizes(4, 5, (2, 3), (2 * patch_px, 3 * patch_px), (1, 1))

    with pytest.raises(SparBenchError) as refining:
        refiner.features(features, guidance, (1, 1))
    with pytest.raises(SparBenchError) as planning:
        flops(sizes, cell_px=cell_px)

    assert str(refining.value) == str(planning.value)
    assert str(refining.value) == (
        f"evaluate.refiner.cell_px: must divide the patch, {patch_px} x {patch_px} px, and be at "
        f"most 4, but got {cell_px}; use one of {use}"
    )


def test_channels_that_four_heads_cannot_share_are_refused_in_one_line() -> None:
    features, guidance = inputs((2, 3), 4, channels=6)

    with pytest.raises(SparBenchError, match=r"needs a multiple of 4 channels.* but got 6; use"):
        naf.Refiner(CPU, Weights(None, is_random=True)).features(features, guidance, (1, 1))


def test_spec_may_ask_for_random_weights_and_cells() -> None:
    features, guidance = inputs((2, 3), 8, channels=4)
    refiner = build_refiner(PluginSpec(name="naf", weights="random", cell_px=4), CPU)

    assert isinstance(refiner, RefinesFeatures)
    assert refiner.features(features, guidance, (1, 1)).shape == (4, 4, 6)
