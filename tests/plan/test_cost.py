"""Closed forms against torch's counter, and by hand."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.components.backbone import known_sizes, text_sizes
from spar_bench.components.flops import cosine_flops, encoder_flops, prompt_flops, training_flops
from spar_bench.components.open_clip_io import OpenClipModel
from spar_bench.components.sizes import Sizes
from spar_bench.components.weights import Weights
from spar_bench.errors import SparBenchError
from spar_bench.inference import SINGLE_PASS, Inference
from spar_bench.plan.cost import image_flops, pass_hw, refining_flops, windows_of
from spar_bench.run.trainable import set_trainable
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec
from spar_bench.windows import origins
from tests.run.tiny import write_clip

VIT_B_16 = known_sizes(BackboneSpec(name="openclip-b16-laion2b"))
PATCHWORK = known_sizes(BackboneSpec(name="patchwork"))
LIKE_CAMVID: dict[str, Any] = {
    "image_size": 128, "patch_size": 16, "width": 160, "layers": 6, "head_width": 32,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _slow_attention() -> Iterator[None]:
    """Make the counter see attention: before torch 2.15 it also misses the CPU's fused kernel."""
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.backends.mha.set_fastpath_enabled(True)


def on_meta(name: str) -> OpenClip:
    """Build a backbone whose image tower has shapes and no numbers."""
    spec = BackboneSpec(name=name)
    sizes = known_sizes(spec)
    vision = {
        "image_size": sizes.image_px, "patch_size": sizes.patch_px, "width": sizes.width,
        "layers": sizes.depth, "head_width": sizes.width // sizes.heads,
    }  # fmt: skip
    text = {"vocab_size": 8, "width": 8, "heads": 1, "layers": 1, "context_length": 4}
    with torch.device("meta"):
        model = open_clip.CLIP(sizes.channels, vision, text)
    return OpenClip(spec, OpenClipModel(model, Weights(None, is_random=True), ""))


def counted(name: str, image_hw: tuple[int, int]) -> int:
    backbone = on_meta(name)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone.features(torch.zeros(1, 3, *image_hw, device="meta"))
    return int(counter.get_total_flops())


def test_vit_b_16_without_the_read_out_is_the_known_figure() -> None:
    n, width = 196, 768
    whole = encoder_flops(VIT_B_16, (224, 224))

    attention_and_class_token = (
        197 * width * (8 * width + 4 * 197 + 16 * width) - n * width * (4 + 16) * width
    )
    projection = 2 * n * width * 512
    assert whole + attention_and_class_token - projection == pytest.approx(35.13e9, rel=1e-3)


@pytest.mark.parametrize("image_hw", [(224, 224), (336, 512), (250, 449)])
def test_vit_b_16_is_what_torch_counts(image_hw: tuple[int, int]) -> None:
    assert encoder_flops(VIT_B_16, image_hw) == pytest.approx(
        counted("openclip-b16-laion2b", image_hw), rel=0.001
    )


@pytest.mark.parametrize("image_hw", [(64, 64), (256, 320), (100, 90)])
def test_patchwork_is_what_torch_counts(image_hw: tuple[int, int]) -> None:
    assert encoder_flops(PATCHWORK, image_hw) == pytest.approx(
        counted("patchwork", image_hw), rel=0.001
    )


def test_model_of_street_scenes_is_what_torch_counts(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "clip", pool_type="avg", **LIKE_CAMVID)
    backbone = OpenClip(BackboneSpec(name="openclip", path=str(folder)))

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone.features(torch.zeros(1, 3, 160, 240))

    assert encoder_flops(backbone.sizes, (160, 240)) == pytest.approx(
        counter.get_total_flops(), rel=0.001
    )


@pytest.mark.parametrize(
    ("trainable", "n_through"),
    [
        ("all", 4),
        ("position_embedding", 4),
        ("patch_embedding", 4),
        ("last_1_blocks", 0),  # the last block has no attention
        ("last_2_blocks", 1),
        ("last_5_blocks", 4),
        ("attention_of_last_1_blocks", 0),
        ("attention_of_last_3_blocks", 2),
        ("mlp_of_last_1_blocks", 0),
        ("mlp_of_last_2_blocks", 0),  # gradient ends at the MLP of the last but one
        ("mlp_of_last_3_blocks", 1),
    ],
)
@pytest.mark.parametrize("image_hw", [(96, 128), (256, 320)])
def test_training_is_what_torch_counts(
    image_hw: tuple[int, int], trainable: str, n_through: int
) -> None:
    backbone = on_meta("patchwork")
    set_trainable(backbone, trainable)

    with FlopCounterMode(display=False) as counter:
        features = backbone.features(torch.zeros(1, 3, *image_hw, device="meta"))
        features.square().mean().backward()  # type: ignore[no-untyped-call]

    # On this device attention is plain products, of which fused kernels repeat the first.
    n_tokens = (image_hw[0] // 8) * (image_hw[1] // 8) + 1
    repeated = n_through * 2 * n_tokens**2 * PATCHWORK.width
    expected = counter.get_total_flops() + repeated
    assert training_flops(PATCHWORK, image_hw, trainable) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openclip-b16-laion2b", "ViT-B-16"),
        pytest.param("siglip2-b16-512", "ViT-B-16-SigLIP2-512", marks=pytest.mark.slow),
        pytest.param("siglip2-l16-256", "ViT-L-16-SigLIP2-256", marks=pytest.mark.slow),
        pytest.param("siglip2-so400m14-378", "ViT-SO400M-14-SigLIP2-378", marks=pytest.mark.slow),
    ],
)
def test_a_prompt_costs_what_torch_counts(name: str, model: str) -> None:
    text = text_sizes(BackboneSpec(name=name))
    assert text is not None
    made: Any = open_clip.create_model(model, device="meta", pretrained_hf=False)

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        made.encode_text(torch.zeros(1, text.context, dtype=torch.long, device="meta"))

    assert prompt_flops(text) == pytest.approx(counter.get_total_flops(), rel=2e-4)


def windows(stride_px: int, average: Any, window_px: int = 64) -> Inference:
    upsample = 2 if average == "features" else None
    return Inference("sliding_window", window_px, stride_px, average, upsample)


def test_windows_of_averaged_features_slide_over_whole_patches_only() -> None:
    image_hw = 69, 133  # 64 x 128 in whole patches of 8

    assert windows_of(PATCHWORK, windows(4, "features"), image_hw) == 1 * 17
    assert windows_of(PATCHWORK, windows(4, "logits"), image_hw) == 3 * 19
    assert windows_of(PATCHWORK, SINGLE_PASS, image_hw) == 1


@pytest.mark.parametrize("average", ["logits", "features"])
def test_an_image_costs_its_windows_and_its_products_with_text(average: Any) -> None:
    inference, image_hw = windows(12, average), (256, 320)

    found = image_flops(PATCHWORK, inference, image_hw, n_queries=25)

    n_passes = 17 * 23
    a_window, text = encoder_flops(PATCHWORK, (64, 64)), 2 * 128 * 25
    n_texts = n_passes * 64 if average == "logits" else 32 * 40
    assert found == n_passes * a_window + n_texts * text


def test_single_pass_costs_one_pass() -> None:
    found = image_flops(PATCHWORK, SINGLE_PASS, (256, 320), n_queries=25)

    assert found == encoder_flops(PATCHWORK, (256, 320)) + cosine_flops(PATCHWORK, (256, 320), 25)


def test_fine_teacher_costs_many_students() -> None:
    teacher, student = (
        image_flops(PATCHWORK, inference, (256, 320), n_queries=25)
        for inference in (windows(12, "logits"), SINGLE_PASS)
    )

    assert teacher > 8 * student


def test_window_is_clipped_to_a_smaller_image() -> None:
    assert pass_hw(PATCHWORK, windows(12, "logits"), (40, 320)) == (40, 64)
    assert pass_hw(PATCHWORK, SINGLE_PASS, (40, 320)) == (40, 320)
    assert windows_of(PATCHWORK, windows(32, "logits"), (40, 320)) == 1 * 9


# Patches of 8, windows of 64, stride 32: the size slid over, windows, patches of a window.
SLID: dict[str, tuple[Sizes, tuple[int, int], tuple[int, int], int, tuple[int, int]]] = {
    "floor": (PATCHWORK, (61, 133), (56, 128), 1 * 3, (7, 8)),
    "pad": (replace(PATCHWORK, odd_sides="pad"), (43, 133), (48, 136), 1 * 4, (6, 8)),
    "stretch": (replace(PATCHWORK, odd_sides="stretch"), (57, 64), (64, 64), 1, (8, 8)),
    # 10 x 40 patches; 5 x 20 = 100 are within the budget, and so is no larger scale.
    "budget": (
        replace(PATCHWORK, odd_sides="pad", token_budget=100),
        (80, 320),
        (40, 160),
        1 * 4,
        (5, 8),
    ),
}


@pytest.mark.parametrize("which", SLID)
def test_averaged_features_are_of_windows_clipped_to_what_they_slide_over(which: str) -> None:
    sizes, image_hw, whole_hw, n_passes, window_grid = SLID[which]
    inference = windows(32, "features")

    found = image_flops(sizes, inference, image_hw, n_queries=0)

    tops, lefts = (origins(side, min(64, side), 32) for side in whole_hw)
    assert len(tops) * len(lefts) == n_passes == windows_of(sizes, inference, image_hw)
    height, width = window_grid
    assert pass_hw(sizes, inference, image_hw) == (height * 8, width * 8)
    assert found == n_passes * encoder_flops(PATCHWORK, (height * 8, width * 8))


def refiner(folder: Path, stated: str) -> PluginSpec:
    """Write a refiner by path that states this, and cannot be imported."""
    path = folder / "sharper.py"
    path.write_text(
        f'"""Sharper."""\n\nimport nothing\n\nVERSION = 1\n{stated}\n\n\nclass Refiner:\n'
        '    def __init__(self, device, weights, *, kernel=3, mode: str = "a"): ...\n'
    )
    return PluginSpec(name=str(path), kernel=5)


def test_refiner_costs_what_its_formula_says_of_the_sizes_and_settings(tmp_path: Path) -> None:
    spec = refiner(tmp_path, 'FLOPS = "2 * h * w * C + H * W * kernel**2 + T * U * Q // 2 - 1"')

    found = refining_flops(spec, PATCHWORK, (69, 133), (70, 140), n_queries=25)

    # In whole patches of 8, 8 x 16 of 128 channels.
    assert found == 2 * 8 * 16 * 128 + 64 * 128 * 5**2 + 70 * 140 * 25 // 2 - 1


def test_refiner_without_a_formula_has_no_known_cost(tmp_path: Path) -> None:
    spec = refiner(tmp_path, "")

    assert refining_flops(spec, PATCHWORK, (64, 96), (64, 96), n_queries=3) is None
    assert refining_flops(PluginSpec(name="none"), PATCHWORK, (64, 96), (64, 96), n_queries=3) == 0


def test_refiner_may_state_a_function_of_the_sizes_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sharper_cost.py").write_text(
        "def flops(refined, *, kernel, mode):\n"
        "    (h, w), (height, width), (t, u) = refined.grid_hw, refined.seen_hw, refined.out_hw\n"
        "    terms = h * w * refined.channels, height * width * kernel, t * u * refined.n_queries\n"
        "    return sum(terms) + len(mode)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = refiner(tmp_path, 'FLOPS = "sharper_cost:flops"')

    found = refining_flops(spec, PATCHWORK, (69, 133), (70, 140), n_queries=25)

    assert found == 8 * 16 * 128 + 64 * 128 * 5 + 70 * 140 * 25 + 1


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("absent", None, "ModuleNotFoundError: No module named 'absent'"),
        ("without", "", "AttributeError: module 'without' has no attribute 'flops'"),
        ("no_python", "def", "SyntaxError: "),
        ("of_nothing", "def flops(): ...", "TypeError: flops() "),
        ("no_number", "def flops(refined, **_):\n    return 'many'", "TypeError: type str "),
    ],
)
def test_function_that_gives_no_cost_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str | None, reason: str
) -> None:
    if code is not None:
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    spec = refiner(tmp_path, f'FLOPS = "{name}:flops"')

    with pytest.raises(SparBenchError) as refused:
        refining_flops(spec, PATCHWORK, (64, 96), (64, 96), n_queries=3)

    line = str(refused.value)
    assert line.startswith(
        f"{spec.name}: FLOPS: must name a function of sizes and settings, but '{name}:flops' gives "
        f"{reason}"
    )
    assert line.endswith("; correct it")
    assert "\n" not in line


@pytest.mark.parametrize(
    "formula",
    [
        *("2 * h * depth", "2 * mode", "h.w", "max(h, w)", "2 *", "h // (w - w)", "True * h"),
        *("(1 - 2) ** 0.5", "9 ** 9 ** 9", "2 ** -99"),
    ],
)
def test_formula_of_anything_else_is_refused_in_one_line(tmp_path: Path, formula: str) -> None:
    spec = refiner(tmp_path, f"FLOPS = {formula!r}")

    with pytest.raises(SparBenchError) as refused:
        refining_flops(spec, PATCHWORK, (64, 96), (64, 96), n_queries=3)

    start = f"{spec.name}: FLOPS: must be arithmetic in C, Q, h, w, H, W, T, U and settings that"
    assert str(refused.value).startswith(start)
    assert "\n" not in str(refused.value)
