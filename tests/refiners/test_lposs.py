"""LPOSS with DINO: what DINO sees, its values, other grids, weights and cost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spar_bench.components.refiner import (
    RefinedSizes,
    refiner_identity,
    refiner_weights,
    refining_flops,
)
from spar_bench.components.weights import Weights
from spar_bench.errors import NotReady
from spar_bench.refiners import lposs
from spar_bench.refiners._dino import Dino
from spar_bench.refiners._lposs import on_grid
from spar_bench.refiners._patch_graph import PatchGraph
from spar_bench.refiners.base import Guidance
from spar_bench.run.cost import TOLERANCE, _plain_attention
from spar_bench.spec.plugins import PluginSpec
from spar_bench.testing import RefinerContract
from tests.backbones.resampling_reference import cubic
from tests.components.hub import in_hub_cache, nowhere
from tests.refiners.test_lposs_graphs import conjugate_gradients, drawn
from tests.small import printed

__all__ = ["nowhere"]

CPU = torch.device("cpu")
MODEL = "vit_base_patch16_224.dino"
RANDOM = Weights(None, is_random=True)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
N_PARAMS = 85_798_656

Image = Callable[[int, int], Guidance]


@pytest.fixture(scope="module")
def dino() -> Dino:
    return Dino(RANDOM, CPU)


@pytest.fixture
def refine(dino: Dino, monkeypatch: pytest.MonkeyPatch) -> Callable[..., lposs.Refiner]:
    """Make a refiner, DINO being made once."""
    monkeypatch.setattr(lposs, "Dino", lambda weights, device: dino)
    return lambda **settings: lposs.Refiner(CPU, RANDOM, **settings)


class TestLposs(RefinerContract):
    @pytest.fixture
    def refiner(self, refine: Callable[..., lposs.Refiner]) -> object:
        return refine()


class TestLpossPlus(RefinerContract):
    @pytest.fixture
    def refiner(self, refine: Callable[..., lposs.Refiner]) -> object:
        return refine(pixels=True, rescale=True)


def image(height: int, width: int) -> Guidance:
    """Draw pixels of 0 to 1, normalised as SigLIP's are."""
    pixels = torch.rand(3, height, width, generator=torch.Generator().manual_seed(2))
    return Guidance((pixels - 0.5) / 0.5, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def timm_values(dino: Dino, seen: Tensor, positions: Tensor) -> Tensor:
    """Return timm's own values of the last block, `(h, w, 768)`, of an image `(3, H, W)`."""
    height, width = seen.shape[-2:]
    with torch.device("meta"):
        vit: Any = timm.create_model(MODEL, num_classes=0, img_size=(height, width)).eval()
    vit.load_state_dict(dino._vit.state_dict() | {"pos_embed": positions}, assign=True)
    caught: list[Tensor] = []
    vit.blocks[-1].attn.qkv.register_forward_hook(lambda *found: caught.append(found[2]))
    with torch.no_grad():
        vit(seen[None])
    return caught[0][0, 1:, 2 * 768 :].reshape(height // 16, width // 16, 768)


def positions(table: Tensor, h: int, w: int) -> Tensor:
    """Resample 14 x 14 positions bicubically, outputs 14 / (grid + 0.1) apart, by matrices."""
    rows, columns = (cubic(14, n, step=14 / (n + 0.1)) for n in (h, w))
    native = table[0, 1:].reshape(14, 14, 768).double()
    resampled = torch.einsum("ir,jc,rcd->ijd", rows, columns, native).flatten(0, 1).float()
    return torch.cat([table[:, :1], resampled[None]], dim=1)


def test_values_are_timms_in_the_last_block_with_positions_resampled_as_dino_does(
    dino: Dino,
) -> None:
    guidance = image(48, 80)
    seen = guidance.normalised(MEAN, STD)

    found = dino.values(guidance)

    expected = timm_values(dino, seen, positions(dino._vit.pos_embed, 3, 5))
    assert found.shape == (768, 3, 5)
    assert torch.allclose(found.permute(1, 2, 0), expected, atol=1e-4)


def test_values_of_a_native_image_have_the_positions_as_they_are(dino: Dino) -> None:
    guidance = image(224, 224)

    found = dino.values(guidance)

    expected = timm_values(dino, guidance.normalised(MEAN, STD), dino._vit.pos_embed)
    assert torch.allclose(found.permute(1, 2, 0), expected, atol=1e-4)


def test_sides_that_are_no_whole_patches_are_padded_with_black(dino: Dino) -> None:
    guidance = image(40, 56)
    black = torch.zeros(3, 48, 64)
    black[:, :40, :56] = guidance.pixels / 2 + 0.5

    found = dino.values(guidance)

    assert found.shape == (768, 3, 4)
    assert torch.allclose(found, dino.values(Guidance(black, (0, 0, 0), (1, 1, 1))), atol=1e-4)


def test_random_weights_are_those_of_their_seed(dino: Dino) -> None:
    same, other = (Dino(Weights(None, is_random=True, seed=seed), CPU) for seed in (0, 1))

    weights = [one._vit.blocks[5].attn.qkv.weight for one in (dino, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("image_hw", [(64, 96), (50, 90)])
def test_scores_are_propagated_over_the_graph_of_the_values_16_pixels_apart(
    dino: Dino, refine: Callable[..., lposs.Refiner], image_hw: tuple[int, int]
) -> None:
    guidance, scores = image(*image_hw), 0.1 * drawn(3, 4, 6)

    found = refine(k=5).scores(scores, None, guidance, (50, 70))

    graph = PatchGraph(k=5, gamma=3.0, sigma=0.01).of(dino.values(guidance), 16)
    expected = conjugate_gradients(graph.double(), scores.flatten(1), 10)
    assert torch.allclose(found.flatten(1).double(), expected, atol=1e-5)


def test_with_pixels_every_pixel_that_was_seen_has_scores_of_its_colour(
    refine: Callable[..., lposs.Refiner],
) -> None:
    left = torch.zeros(3, 32, 48)
    left[:, :, :20] = 1.0  # not where patches meet
    guidance, scores = Guidance(left, (0, 0, 0), (1, 1, 1)), drawn(1, 2, 3)

    found = refine(pixels=True, max_iterations=300, neighbourhood_px=3)
    refined = found.scores(scores, None, guidance, (32, 48))[0]

    assert refined.shape == (32, 48)
    across, within = (refined[:, 20] - refined[:, 19]).abs(), refined[:, 1:19].diff(dim=1).abs()
    assert across.mean() > 5 * within.mean()


def test_cosines_on_another_grid_are_those_of_features_resampled_and_normalised_again() -> None:
    features, queries = drawn(6, 3, 5), F.normalize(drawn(4, 6, seed=1), dim=1)
    unit = F.normalize(features, dim=0)
    scores = torch.einsum("qc,chw->qhw", queries, unit)

    found = on_grid(scores, features, (4, 3))

    resampled = F.interpolate(unit[None], size=(4, 3), mode="bilinear")[0]
    expected = torch.einsum("qc,chw->qhw", queries, F.normalize(resampled, dim=0))
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.equal(on_grid(scores, features, (3, 5)), scores)


def test_scores_of_pixels_are_averaged_where_the_grid_is_coarser() -> None:
    rows = torch.arange(64.0)[:, None].expand(64, 48)
    noise = (-1.0) ** torch.arange(48)  # which samples alone would not average out

    found = on_grid((rows + noise)[None], None, (4, 3))

    assert torch.allclose(found[0, 1:3], torch.tensor([[23.5], [39.5]]).expand(2, 3), atol=0.1)


def test_weights_are_found_under_dinos_names_in_a_file_or_the_hubs_folder(
    dino: Dino, tmp_path: Path
) -> None:
    state = {name: value + 1 for name, value in dino._vit.state_dict().items()}
    folder = tmp_path / "download"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")  # beside it on the Hub, and not read
    torch.save(state, tmp_path / "dino_vitbase16_pretrain.pth")
    in_hub_cache(tmp_path / "hub", "timm/vit_base_patch16_224.dino", folder)
    paths = {"path": str(tmp_path / "dino_vitbase16_pretrain.pth")}

    for spec in (PluginSpec(name="lposs"), PluginSpec(name="lposs", **paths)):
        found = Dino(refiner_weights(spec) or RANDOM, CPU)
        assert torch.equal(found._vit.pos_embed, dino._vit.pos_embed + 1)
        assert found.n_params == N_PARAMS


def changed(state: dict[str, Tensor], name: str, value: Tensor | None) -> dict[str, Tensor]:
    kept = {key: tensor for key, tensor in state.items() if key != name}
    return kept if value is None else kept | {name: value}


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("norm.bias", None, "must be of shape (768,), but is absent"),
        ("pos_embed", torch.zeros(1, 785, 768), "(1, 197, 768), but is of shape (1, 785, 768)"),
        ("head.bias", torch.zeros(2), "head.bias must be absent, but is of shape (2,)"),
    ],
)
def test_weights_of_another_model_are_refused_in_one_line(
    dino: Dino, tmp_path: Path, name: str, value: Tensor | None, fault: str
) -> None:
    path = tmp_path / "other.safetensors"
    save_file(changed(dino._vit.state_dict(), name, value), path)

    with pytest.raises(NotReady) as loading:
        Dino(Weights(path), CPU)
    with pytest.raises(NotReady) as before:
        refiner_identity(PluginSpec(name="lposs", path=str(path)))

    line = str(loading.value)
    assert line == str(before.value)
    assert line.startswith(f"{path}: {name} must be ")
    assert fault in line
    assert line.endswith("; use the published weights of lposs")


def test_weights_that_are_not_finite_are_refused(dino: Dino, tmp_path: Path) -> None:
    table = dino._vit.pos_embed.clone()
    table[0, 3, 5] = torch.nan
    save_file(changed(dino._vit.state_dict(), "pos_embed", table), tmp_path / "w.safetensors")

    with pytest.raises(NotReady, match=r"w\.safetensors: pos_embed must be finite, but is not;"):
        Dino(Weights(tmp_path / "w.safetensors"), CPU)


def test_missing_weights_are_named_with_their_source_and_licence() -> None:
    with pytest.raises(NotReady, match=r"vit_base_patch16_224\.dino.*\(Apache-2\.0\)"):
        refiner_identity(PluginSpec(name="lposs"))


def test_settings_decide_its_identity() -> None:
    one, other = (
        refiner_identity(PluginSpec(name="lposs", weights="random", **settings))
        for settings in ({}, {"alpha": 0.9})
    )

    assert one.files == {"random": 0}
    assert one.settings["alpha"] == 0.95
    assert one != other


@pytest.mark.parametrize("rescale", [False, True])
def test_stated_flops_are_what_torch_counts(
    refine: Callable[..., lposs.Refiner], rescale: bool
) -> None:
    guidance, scores = image(152, 232), drawn(21, 19, 29)  # 10 x 15 patches with black
    refiner = refine(rescale=rescale, tolerance=0.0)
    settings = {"name": "lposs", "rescale": rescale}
    sizes = RefinedSizes(512, 21, (19, 29), (152, 232), (300, 500))

    with _plain_attention(), FlopCounterMode(display=False) as counter:
        refiner.scores(scores, None, guidance, (300, 500))

    stated = refining_flops(PluginSpec(**settings), sizes)
    assert counter.get_total_flops() == pytest.approx(stated, rel=TOLERANCE)


def test_stated_flops_are_those_of_the_formula() -> None:
    sizes = RefinedSizes(512, 30, (64, 128), (1024, 2048), (1024, 2048))

    found = refining_flops(PluginSpec(name="lposs"), sizes)

    n, tokens, d = 64 * 128, 64 * 128 + 1, 768
    dino = 2 * n * 768 * d + 11 * (24 * tokens * d**2 + 4 * tokens**2 * d) + 2 * n * d**2
    assert found == dino + 2 * n**2 * (768 + 10 * 30)


def test_its_cost_is_known_without_torch() -> None:
    code = "import sys, spar_bench.refiners._lposs_cost; print('torch' in sys.modules)"

    assert printed(code) == "False"


@pytest.mark.slow
def test_an_image_of_two_megapixels_is_refined_whole(
    refine: Callable[..., lposs.Refiner],
) -> None:
    found = refine().scores(drawn(30, 64, 128), None, image(1024, 2048), (1024, 2048))

    assert found.shape == (30, 64, 128)
    assert found.isfinite().all()
