"""The recipe of the small AnyUp: its forward, its examples, its steps, and that they repeat."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from recipes.anyup_patchwork import examples as module
from recipes.anyup_patchwork import train as recipe
from recipes.anyup_patchwork.examples import TARGET_PX, Example, draw_example, draw_lesson
from recipes.anyup_patchwork.forward import Part, upsample
from recipes.anyup_patchwork.train import Recipe, lesson_loss, new_network, train
from spar_bench.backbones.patchwork import Backbone
from spar_bench.errors import Diverged
from spar_bench.refiners._anyup_network import Network
from spar_bench.refiners.base import Guidance
from spar_bench.run.inference import single_pass
from spar_bench.spec.schema import BackboneSpec

SMALL = Recipe(n_examples=2, warm_up_steps=1)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(BackboneSpec(name="patchwork"))


@pytest.fixture
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PICTURES_HW", ((64, 72), (64, 72)))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("cell_px", [1, 2, 4])
def test_a_part_is_that_of_the_network_s_own_forward(width: int, cell_px: int) -> None:
    torch.manual_seed(0)
    network = Network(width).double()  # in float32, rounding alone moves them by 2e-5
    features, image = drawn(11, 6, 9).double(), drawn(3, 48, 72, seed=1).double()
    cells_hw = 48 // cell_px, 72 // cell_px

    for rows, columns in ((slice(2, 10), slice(4, 12)), (slice(0, cells_hw[0]), slice(7, 18))):
        part = upsample(network, features, features, image, Part(cells_hw, rows, columns))
        whole = network(features, features, image, cells_hw)
        assert torch.allclose(part, whole[:, rows, columns], rtol=0, atol=1e-10)


def test_every_weight_that_decides_the_output_has_a_gradient() -> None:
    network, features = new_network(0), drawn(11, 6, 9)
    part = Part((48, 72), slice(2, 10), slice(4, 12))

    found = upsample(network, features, features, drawn(3, 48, 72, seed=1), part)
    found.square().sum().backward()  # type: ignore[no-untyped-call]

    without = {name for name, one in network.named_parameters() if one.grad is None}
    attention = "cross_decode.cross_attn.attention.out_proj"
    assert without == {f"{attention}.weight", f"{attention}.bias"}


@pytest.mark.usefixtures("_small_pictures")
def test_an_example_has_the_features_of_one_pass_and_those_of_windows_at_pixels(
    backbone: Backbone,
) -> None:
    example = draw_example(backbone, 1, 0)

    seen = Guidance(example.image, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD).normalised(
        backbone.mean, backbone.std
    )
    assert seen.shape == (3, 64, 72)
    assert torch.allclose(single_pass(backbone, seen[None])[0], example.features, atol=1e-3)
    # Windows begin at 0 and 8: enlarged to pixels, added, and divided by how many there are.
    total, n_windows = torch.zeros(128, 64, 72), torch.zeros(64, 72)
    for left in (0, 8):
        window = single_pass(backbone, seen[None, :, :, left : left + 64])
        enlarged = F.interpolate(window, size=(64, 64), mode="bilinear")[0]
        total[:, :, left : left + 64] += enlarged
        n_windows[:, left : left + 64] += 1
    wanted = F.avg_pool2d(total / n_windows, TARGET_PX)
    assert (example.target.float() - wanted).abs().max() < 1e-2


def test_large_pictures_have_guidance_of_half_their_sides_and_some_of_all(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PICTURES_HW", ((64, 72), (64, 64)))
    monkeypatch.setattr(module, "_SMALL_SHARE", 0.0)

    shapes = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(module, "_FULL_GUIDANCE_SHARE", share)
        example = draw_example(backbone, 0, 0)
        shapes.append((example.image.shape[1:], example.target.shape[1:]))

    assert shapes == [((32, 36), (32, 36)), ((64, 72), (32, 36))]


def test_pictures_are_of_many_scales_and_whole_patches() -> None:
    sizes = {
        tuple(module._picture(index, np.random.default_rng(index)).shape[1:]) for index in range(24)
    }

    assert len(sizes) > 6
    assert all(side % 8 == 0 for hw in sizes for side in hw)
    assert min(min(hw) for hw in sizes) >= 128
    assert (128, 160) in sizes
    assert (256, 320) in sizes


@pytest.mark.parametrize("seed", range(6))
def test_a_lesson_is_a_part_of_the_cells_with_their_own_target(seed: int) -> None:
    """The target's value is its place in pixels, so that the mean over a cell is its centre."""
    y = torch.arange(0, 128, TARGET_PX)[:, None] + TARGET_PX / 2 - 0.5
    x = torch.arange(0, 160, TARGET_PX)[None] + TARGET_PX / 2 - 0.5
    places = torch.stack([y.expand(64, 80), x.expand(64, 80)])
    example = Example(torch.zeros(3, 128, 160), torch.zeros(2, 16, 20), places.half())

    (_, part, target) = draw_lesson(example, np.random.default_rng(seed))

    cell_px = 128 // part.cells_hw[0]
    assert part.cells_hw == (128 // cell_px, 160 // cell_px)
    for side, cells in enumerate((part.rows, part.columns)):
        centres = (torch.arange(cells.start, cells.stop) + 0.5) * cell_px - 0.5
        found = target[side].mean(dim=1 - side)
        assert (found - centres).abs().max() <= (0.5 if cell_px < TARGET_PX else 0)


def test_lessons_have_cells_of_each_size_and_none_below_a_pixel_of_the_guidance() -> None:
    features, target = torch.zeros(2, 16, 20), torch.zeros(2, 64, 80)
    rng = np.random.default_rng(0)

    of_pixels, of_half = (
        {
            draw_lesson(Example(torch.zeros(3, *hw), features, target), rng).part.cells_hw
            for _ in range(40)
        }
        for hw in ((128, 160), (64, 80))
    )

    assert of_pixels == {(128, 160), (64, 80), (32, 40)}
    assert of_half == {(64, 80), (32, 40)}


@pytest.mark.usefixtures("_small_pictures")
def test_the_loss_on_one_lesson_falls(backbone: Backbone) -> None:
    example = draw_example(backbone, 0, 0)
    lesson, network = draw_lesson(example, np.random.default_rng(0)), new_network(0)
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)

    losses = []
    for _ in range(12):
        loss = lesson_loss(network, lesson)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())

    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.usefixtures("_small_pictures")
def test_two_steps_write_weights_of_the_network_in_half_precision_and_a_report(
    tmp_path: Path,
) -> None:
    report = train(tmp_path, steps=2, seed=3, recipe=SMALL, on_progress=lambda line: None)

    weights = load_file(tmp_path / recipe.WEIGHTS_FILE)
    assert {one.dtype for one in weights.values()} == {torch.float16}
    Network(64).load_state_dict(weights)
    written = json.loads((tmp_path / recipe.REPORT_FILE).read_text())
    assert (written["seed"], written["steps"], written["recipe"]["n_examples"]) == (3, 2, 2)
    assert written["loss"] == report.loss > 0
    assert str(report).startswith("seed 3, 2 steps in 0 min")


@pytest.mark.usefixtures("_small_pictures")
def test_a_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(tmp_path / name, steps=2, seed=seed, recipe=SMALL, on_progress=lambda line: None)

    first, again, other = (load_file(tmp_path / name / recipe.WEIGHTS_FILE) for name in "abc")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["image_encoder.0.weight"], other["image_encoder.0.weight"])


@pytest.mark.usefixtures("_small_pictures")
def test_a_loss_that_is_not_finite_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "lesson_loss", lambda *_: torch.tensor(torch.nan))

    with pytest.raises(Diverged, match="finite"):
        train(tmp_path, steps=1, seed=0, recipe=SMALL, on_progress=lambda line: None)


def test_a_network_begins_by_preferring_patches_that_look_like_the_cell() -> None:
    image = torch.full((3, 48, 64), -1.0)
    image[:, :, 32:] = 1
    values = torch.zeros(1, 6, 8)
    values[:, :, 4:] = 1

    with torch.no_grad():
        found = upsample(
            new_network(0),
            values,
            drawn(11, 6, 8),
            image,
            Part((48, 64), slice(0, 48), slice(0, 64)),
        )

    # The two columns of cells beside the edge see the same patches: an average of them is 0.5.
    assert found[0, :, 31].mean() < 0.4
    assert found[0, :, 32].mean() > 0.6
