"""AnyUp's numbers: against plain loops in float64; its windows, chunks, tiles, cost and memory."""

import json
from fractions import Fraction
from math import ceil, floor, prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from spar_bench.backbones.base import fit_sides
from spar_bench.components.refiner import RefinedSizes
from spar_bench.components.sizes import Sizes
from spar_bench.components.weights import Weights
from spar_bench.errors import SparBenchError
from spar_bench.refiners import _anyup_cost, _anyup_geometry, anyup
from spar_bench.refiners._anyup_network import Network
from spar_bench.refiners.base import Guidance, RefinesFeatures, RefinesScores
from spar_bench.testing import RefinerContract
from tests.refiners import anyup_reference as reference
from tests.small import printed

CPU = torch.device("cpu")
KEYS = Path(anyup.__file__).with_name("anyup_keys.json")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def listed() -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads(KEYS.read_text(encoding="utf-8"))
    return shapes


def random_state() -> dict[str, Tensor]:
    """Draw weights of the published names that make attention neither flat nor a choice of one."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in listed().items():
        drawn = torch.randn(shape, generator=generator)
        if name == "rope.freqs":
            state[name] = 4 * drawn
        elif len(shape) == 1 and name.endswith("weight"):
            state[name] = 1 + 0.3 * drawn
        elif len(shape) == 1:
            state[name] = 0.2 * drawn
        else:
            state[name] = 1.5 * drawn / prod(shape[1:]) ** 0.5
    return state


@pytest.fixture
def found(tmp_path: Path) -> Weights:
    """Random weights in a file."""
    save_file(random_state(), tmp_path / "anyup.safetensors")
    return Weights(tmp_path / "anyup.safetensors")


def made(found: Weights, **settings: Any) -> Any:
    return anyup.Refiner(CPU, found, **settings)


def guidance_of(image_hw: tuple[int, int]) -> Guidance:
    pixels = torch.randn(3, *image_hw, generator=torch.Generator().manual_seed(1))
    return Guidance(pixels, MEAN, STD)


def maps(channels: int, grid_hw: tuple[int, int], seed: int = 2) -> Tensor:
    return torch.randn(channels, *grid_hw, generator=torch.Generator().manual_seed(seed))


def by_the_book(
    values: Tensor, features: Tensor, guidance: Guidance, cells_hw: tuple[int, int]
) -> Tensor:
    state = {name: one.double().numpy() for name, one in random_state().items()}
    mean, std, own_mean, own_std = (
        np.array(channels)[:, None, None]
        for channels in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), MEAN, STD)
    )
    image = (guidance.pixels.double().numpy() * own_std + own_mean - mean) / std
    wanted = reference.upsample(
        state, values.double().numpy(), features.double().numpy(), image, cells_hw
    )
    return torch.from_numpy(wanted)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


STREET_SCENE = """
import resource

import torch

from spar_bench.components.weights import Weights
from spar_bench.refiners.anyup import Refiner
from spar_bench.refiners.base import Guidance

refiner = Refiner(torch.device("cpu"), Weights(None, is_random=True), of="scores")
guidance = Guidance(torch.randn(3, 1024, 2048), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
features, scores = torch.randn(768, 64, 128), torch.randn(30, 64, 128)
upsampled = torch.zeros(30, 1024, 2048)  # memory of the output, which the refiner's replaces
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
del upsampled
refiner.scores(scores, features, guidance, (1024, 2048))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e9)
"""


class TestOfFeatures(RefinerContract):
    @pytest.fixture
    def refiner(self, found: Weights) -> object:
        return made(found)


class TestOfScores(RefinerContract):
    @pytest.fixture
    def refiner(self, found: Weights) -> object:
        return made(found, of="scores", cell_px=2)


@pytest.mark.parametrize(
    ("grid_hw", "patch_px", "cell_px"),
    [((5, 7), 8, 1), ((21, 12), 4, 1), ((12, 21), 4, 3), ((4, 13), 4, 4), ((9, 6), 4, 7)],
)
def test_features_are_those_of_the_full_computation_in_float64(
    found: Weights, grid_hw: tuple[int, int], patch_px: int, cell_px: int
) -> None:
    guidance = guidance_of((grid_hw[0] * patch_px, grid_hw[1] * patch_px))
    features = maps(11, grid_hw)

    refined = made(found, cell_px=cell_px).features(features, guidance, (30, 50))

    cells_hw = -(-guidance.pixels.shape[1] // cell_px), -(-guidance.pixels.shape[2] // cell_px)
    wanted = by_the_book(features, features, guidance, cells_hw)
    assert refined.shape == (11, *cells_hw)
    assert relative_error(refined, wanted) < 1e-5


def test_scores_are_averaged_with_the_weights_of_features(found: Weights) -> None:
    guidance, features, scores = guidance_of((40, 72)), maps(6, (10, 18)), maps(3, (10, 18), 4)

    refined = made(found, of="scores", cell_px=2).scores(scores, features, guidance, (39, 70))

    assert relative_error(refined, by_the_book(scores, features, guidance, (20, 36))) < 1e-5


def test_pixels_that_pad_an_image_guide_as_the_backbone_saw_them(found: Weights) -> None:
    sizes = Sizes(
        patch_px=8, image_px=64, width=32, depth=2, heads=2, mlp_ratio=4.0, channels=6,
        read_out="patch_tokens", odd_sides="pad",
    )  # fmt: skip
    padded = fit_sides(guidance_of((27, 45)).pixels, sizes)
    guidance, features = Guidance(padded, MEAN, STD), maps(6, sizes.grid_hw((27, 45)))

    refined = made(found).features(features, guidance, (27, 45))

    assert refined.shape == (6, 32, 48)
    assert relative_error(refined, by_the_book(features, features, guidance, (32, 48))) < 1e-5


def test_each_value_lies_between_those_of_its_window(found: Weights) -> None:
    guidance, features = guidance_of((40, 72)), maps(5, (10, 18))

    refined = made(found, cell_px=4).features(features, guidance, (40, 72))

    for i, rows in enumerate(_anyup_geometry.windows(10, 10)):
        for j, columns in enumerate(_anyup_geometry.windows(18, 18)):
            seen = features[:, rows.start : rows.stop, columns.start : columns.stop].flatten(1)
            assert (refined[:, i, j] >= seen.min(dim=1).values - 1e-5).all()
            assert (refined[:, i, j] <= seen.max(dim=1).values + 1e-5).all()


def test_an_object_has_the_one_hook_that_its_settings_ask_for(found: Weights) -> None:
    before, after = made(found), made(found, of="scores")

    assert isinstance(before, RefinesFeatures)
    assert not isinstance(before, RefinesScores)
    assert isinstance(after, RefinesScores)
    assert not isinstance(after, RefinesFeatures)


def test_features_in_half_precision_are_refined_in_float32(found: Weights) -> None:
    refiner, guidance, half = made(found, cell_px=4), guidance_of((24, 40)), maps(6, (3, 5)).half()

    refined = refiner.features(half, guidance, (24, 40))

    assert refined.dtype == torch.float32
    assert torch.equal(refined, refiner.features(half.float(), guidance, (24, 40)))


def test_random_weights_are_the_same_each_time_and_leave_torch_s_generator_alone() -> None:
    guidance, features = guidance_of((24, 40)), maps(6, (3, 5))
    torch.manual_seed(7)
    expected = torch.rand(3)

    torch.manual_seed(7)
    drawn = [
        made(Weights(None, is_random=True, seed=seed), weights="random", cell_px=8)
        for seed in (0, 0, 1)
    ]

    assert torch.equal(torch.rand(3), expected)
    first, again, other = (one.features(features, guidance, (24, 40)) for one in drawn)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"of": "both"}, "evaluate.refiner.of: must be features or scores, but got 'both'; use"),
        ({"cell_px": 0}, "evaluate.refiner.cell_px: must be at least 1, but got 0; 1 gives"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_the_refiner_and_by_its_cost(
    settings: dict[str, Any], message: str
) -> None:
    sizes = RefinedSizes(6, 3, (3, 5), (24, 40), (24, 40))
    both = {"of": "features", "cell_px": 1, **settings}

    with pytest.raises(SparBenchError, match=message):
        made(Weights(None, is_random=True), **settings)
    with pytest.raises(SparBenchError, match=message):
        _anyup_cost.flops(sizes, **both)


def test_a_grid_without_inner_patches_is_refused(found: Weights) -> None:
    with pytest.raises(SparBenchError, match=r"at least 2 x 2 patches, but got 1 x 5; raise"):
        made(found).features(maps(6, (1, 5)), guidance_of((8, 40)), (8, 40))


def test_scores_without_features_are_refused(found: Weights) -> None:
    with pytest.raises(SparBenchError, match=r"must see features, .*; set evaluate\.average"):
        made(found, of="scores").scores(maps(3, (3, 5)), None, guidance_of((24, 40)), (24, 40))


@pytest.mark.parametrize("n_patches", [2, 5, 10, 32, 35, 42, 63, 64, 128])
@pytest.mark.parametrize("cells_a_patch", [1, 2, 14, 16])
def test_windows_are_rounded_as_float32_rounds_them(n_patches: int, cells_a_patch: int) -> None:
    n_cells = n_patches * cells_a_patch

    seen = _anyup_geometry.windows(n_cells, n_patches)

    wanted = [reference.bounds(cell, n_cells, n_patches) for cell in range(n_cells)]
    assert [(one.start, one.stop) for one in seen] == wanted


def test_rounding_to_float32_decides_some_windows() -> None:
    """Else the test above could not tell float32 from exact arithmetic."""
    differing = 0
    for i, seen in enumerate(_anyup_geometry.windows(35, 35)):
        centre, reach = Fraction(2 * i + 1, 70), Fraction(1, 10)
        low, high = max(centre - reach, Fraction(0)), min(centre + reach, Fraction(1))
        differing += (seen.start, seen.stop) != (floor(low * 35), ceil(high * 35))

    assert 0 < differing < 35


@pytest.mark.parametrize("tile_patches", [1, 2, 3, 50])
@pytest.mark.parametrize(("n_cells", "n_patches"), [(48, 6), (10, 10), (17, 10), (3, 10)])
def test_tiles_hold_each_cell_once_and_all_that_it_sees(
    n_cells: int, n_patches: int, tile_patches: int
) -> None:
    found = _anyup_geometry.tiles(n_cells, n_patches, tile_patches)

    cells = [cell for tile in found for cell in range(tile.cells.start, tile.cells.stop)]
    assert cells == list(range(n_cells))
    seen = _anyup_geometry.windows(n_cells, n_patches)
    for tile in found:
        own = {patch for window in seen[tile.cells] for patch in window}
        assert (min(own), max(own) + 1) == (tile.patches.start, tile.patches.stop)


@pytest.mark.parametrize(("chunk_px", "tile_patches"), [(1, 1), (100, 3), (2**17, 99)])
def test_chunks_and_tiles_of_any_size_give_the_same(chunk_px: int, tile_patches: int) -> None:
    """In float64, where another order of sums is no difference."""
    features, image = maps(7, (6, 9)).double(), guidance_of((24, 36)).pixels.double()
    whole, parted = Network(), Network(chunk_px=chunk_px, tile_patches=tile_patches)
    for network in (whole, parted):
        network.double().load_state_dict(random_state())

    one, other = (network(features, features, image, (24, 36)) for network in (whole, parted))

    assert relative_error(one, other) < 1e-12


@pytest.mark.parametrize("of", ["features", "scores"])
@pytest.mark.parametrize("cell_px", [1, 3, 8])
def test_stated_cost_is_that_of_torch_s_counter(found: Weights, of: str, cell_px: int) -> None:
    refiner, guidance = made(found, of=of, cell_px=cell_px), guidance_of((72, 112))
    features, queries = maps(24, (9, 14)), torch.randn(5, 24)

    with FlopCounterMode(display=False) as counter:
        if of == "features":
            refined = refiner.features(features, guidance, (70, 110))
            _ = torch.mm(queries, refined.flatten(1))
            on_grid = 2 * 5 * 24 * 9 * 14
        else:
            refiner.scores(maps(5, (9, 14)), features, guidance, (70, 110))
            on_grid = 0
    sizes = RefinedSizes(24, 5, (9, 14), (72, 112), (70, 110))
    stated = _anyup_cost.flops(sizes, of=of, cell_px=cell_px, weights="find", path="")

    counts = counter.get_flop_counts()["Global"]
    assert {torch.ops.aten.bmm, torch.ops.aten.mm, torch.ops.aten.convolution} <= counts.keys()
    assert stated == pytest.approx(counter.get_total_flops() - on_grid, rel=1e-3)


def test_stated_cost_contains_attention_by_hand() -> None:
    """A grid of 2 x 2 is one tile: all of 4 x 6 cells see all of 4 patches."""
    sizes = RefinedSizes(10, 3, (2, 2), (4, 6), (4, 6))

    found = _anyup_cost.flops(sizes, of="scores", cell_px=1)

    pixel, cell = 229_760, 147_456 + 16_384
    patch = 128 * 25 * 10 + 65_536 + 294_912 + 65_536 + 16_384
    assert found == 2 * (24 * pixel + 24 * cell + 4 * patch + 24 * 4 * (128 + 3))


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor):
                self.numel = max(self.numel, one.numel())
        return out


@pytest.mark.parametrize("channels", [5, 96])
def test_nothing_that_it_holds_grows_faster_than_the_image(channels: int) -> None:
    network, largest = Network(chunk_px=2048), []
    for scale in (1, 2):
        grid_hw = 10 * scale, 12 * scale
        image = guidance_of((8 * grid_hw[0], 8 * grid_hw[1])).pixels
        with Largest() as noted:
            network(maps(channels, grid_hw), maps(96, grid_hw), image, image.shape[1:])
        largest.append(noted.numel / image[0].numel())

    # A mask of the whole image would have 120 elements a pixel, then 480.
    assert largest == [128, 128]


@pytest.mark.slow
def test_scores_of_a_street_scene_take_less_than_4_gb_beside_features_and_scores() -> None:
    """2048 x 1024 px, a grid of 128 x 64, 768 channels, 30 queries; some minutes."""
    grown_gb = float(printed(STREET_SCENE))

    assert 1 < grown_gb < 4
