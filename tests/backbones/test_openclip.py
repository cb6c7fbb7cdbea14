"""The open_clip read-out: MaskCLIP spelled out in plain torch, and open_clip's own output."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from spar_bench.backbones._plain_vit import attention_path
from spar_bench.backbones.base import Backbone
from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.components.backbone import identity, known_sizes
from spar_bench.components.flops import encoder_flops
from spar_bench.components.weights import Weights
from spar_bench.errors import NotReady
from spar_bench.run.cost import TOLERANCE, count_encoder_flops
from spar_bench.spec.schema import BackboneSpec
from spar_bench.testing import BackboneContract
from tests.backbones.proofs import CLOSE, distance, one_step, weights_of
from tests.run.tiny import write_clip


def load(folder: Path, **spec: Any) -> OpenClip:
    return OpenClip(BackboneSpec(name="openclip", path=str(folder), **spec))


@pytest.fixture
def backbone(clip: Path) -> OpenClip:
    """The small model."""
    return load(clip)


class TestContract(BackboneContract):
    @pytest.fixture
    def backbone(self, clip: Path) -> Backbone:
        return load(clip)


def layer_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def mlp(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    hidden = x @ state[f"{name}.mlp.c_fc.weight"].T + state[f"{name}.mlp.c_fc.bias"]
    return F.gelu(hidden) @ state[f"{name}.mlp.c_proj.weight"].T + state[f"{name}.mlp.c_proj.bias"]


def attention(x: Tensor, state: dict[str, Tensor], name: str, n_heads: int) -> Tensor:
    weight, bias = state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
    heads = (x @ weight.T + bias).reshape(len(x), x.shape[1], 3, n_heads, -1)
    q, k, v = heads.permute(2, 0, 3, 1, 4)
    mixed: Tensor = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(2)


def positions(
    state: dict[str, Tensor], grid_hw: tuple[int, int], *, by_size: bool, native: int
) -> Tensor:
    """Return position embeddings by the DINO rule, or by size."""
    table = state["positional_embedding"]
    if grid_hw == (native, native):
        return table
    maps = table[1:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
    if by_size:
        maps = F.interpolate(maps, size=grid_hw, mode="bicubic")
    else:
        factor = (grid_hw[0] + 0.1) / native, (grid_hw[1] + 0.1) / native
        maps = F.interpolate(maps, scale_factor=factor, mode="bicubic")
    assert maps.shape[-2:] == grid_hw
    return torch.cat([table[:1], maps.permute(0, 2, 3, 1).reshape(-1, table.shape[1])])


def tokens(state: dict[str, Tensor], images: Tensor, table: Tensor) -> Tensor:
    """Return tokens before the first block, class token first."""
    side = state["conv1.weight"].shape[-1]
    patches = F.unfold(images, side, stride=side).transpose(1, 2)
    x = patches @ state["conv1.weight"].flatten(1).T
    first = state["class_embedding"].expand(len(x), 1, -1)
    return layer_norm(torch.cat([first, x], 1) + table, state, "ln_pre")


def maskclip(
    state: dict[str, Tensor], images: Tensor, *, n_heads: int = 2, by_size: bool = False
) -> Tensor:
    """Read `(B, 3, H, W)` as MaskCLIP does, from the names in a state dict in float64 alone."""
    width, side = state["conv1.weight"].shape[0], state["conv1.weight"].shape[-1]
    native = round((len(state["positional_embedding"]) - 1) ** 0.5)
    last = max(int(name.split(".")[2]) for name in state if name.startswith("transformer."))
    grid_hw = images.shape[-2] // side, images.shape[-1] // side
    images = images[..., : grid_hw[0] * side, : grid_hw[1] * side].double()
    x = tokens(state, images, positions(state, grid_hw, by_size=by_size, native=native))
    for index in range(last):
        name = f"transformer.resblocks.{index}"
        mixed = attention(layer_norm(x, state, f"{name}.ln_1"), state, name, n_heads)
        out = f"{name}.attn.out_proj"
        x = x + mixed @ state[f"{out}.weight"].T + state[f"{out}.bias"]
        x = x + mlp(layer_norm(x, state, f"{name}.ln_2"), state, name)
    name = f"transformer.resblocks.{last}"
    normed = layer_norm(x, state, f"{name}.ln_1")
    weight, bias = state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
    value = normed @ weight[-width:].T + bias[-width:]
    out = f"{name}.attn.out_proj"
    x = x + value @ state[f"{out}.weight"].T + state[f"{out}.bias"]
    x = x + mlp(layer_norm(x, state, f"{name}.ln_2"), state, name)
    x = layer_norm(x, state, "ln_post") @ state["proj"]
    return x[:, 1:].transpose(1, 2).reshape(len(x), -1, *grid_hw)


@pytest.mark.parametrize("image_hw", [(32, 32), (32, 48), (56, 24), (8, 16), (45, 70)])
@pytest.mark.parametrize("by_size", [False, True])
def test_features_are_maskclips(clip: Path, image_hw: tuple[int, int], by_size: bool) -> None:
    backbone = load(clip, position_embedding="size" if by_size else "scale_factor")
    images = torch.randn(2, 3, *image_hw)

    with torch.no_grad():
        found = backbone.features(images)

    expected = maskclip(weights_of(backbone), images, by_size=by_size)
    assert found.shape == (2, 12, image_hw[0] // 8, image_hw[1] // 8)
    assert distance(found, expected) < CLOSE


def test_the_two_rules_for_positions_differ_except_on_the_native_grid(clip: Path) -> None:
    scaled, sized = load(clip), load(clip, position_embedding="size")
    native, wide = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 32, 56)

    with torch.no_grad():
        assert torch.equal(scaled.features(native), sized.features(native))
        assert not torch.allclose(scaled.features(wide), sized.features(wide), atol=1e-4)


def test_grid_of_as_many_tokens_but_another_shape_is_resampled(backbone: OpenClip) -> None:
    image = torch.randn(1, 3, 16, 64)  # 2 x 8 patches, as many as 4 x 4

    with torch.no_grad():
        found = backbone.features(image)

    assert distance(found, maskclip(weights_of(backbone), image)) < CLOSE


def test_with_attention_left_in_the_class_token_is_open_clips_own_output(
    backbone: OpenClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, kept = torch.randn(2, 3, 32, 32), list[Tensor]()

    def whole(block: Any, x: Tensor) -> Tensor:
        kept.append(block(kept.pop()))
        return kept[0][:, 1:]

    def keep(block: Any, x: Tensor) -> Tensor:
        kept[:] = [attention_path(block, x)]
        return kept[0]

    monkeypatch.setattr("spar_bench.backbones._plain_vit.attention_path", keep)
    monkeypatch.setattr("spar_bench.backbones._plain_vit.value_path", whole)
    with torch.no_grad():
        features = backbone.features(images)
        model: Any = backbone.model
        expected = model.encode_image(images)
        state = dict(backbone.visual.state_dict())
        pooled = layer_norm(kept[0][:, 0], state, "ln_post") @ state["proj"]
        mean = layer_norm(kept[0][:, 1:], state, "ln_post").matmul(state["proj"]).mean(1)

    assert torch.allclose(pooled, expected, atol=1e-5)
    assert torch.allclose(features.mean((2, 3)), mean, atol=1e-5)


def test_prompts_are_embedded_as_open_clip_does(clip: Path, backbone: OpenClip) -> None:
    model = open_clip.create_model(f"local-dir:{clip}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip}")
    prompts = ["a photo of a cat.", "road"]

    with torch.no_grad():
        expected = F.normalize(model.encode_text(tokenizer(prompts)), dim=1)

    assert torch.allclose(backbone.encode_text(prompts), expected, atol=1e-6)


def test_what_follows_the_longest_prompt_is_not_read(
    backbone: OpenClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = list[int]()
    model: Any = backbone.model
    block = model.transformer.resblocks[0]
    block.register_forward_hook(lambda module, given, out: lengths.append(given[0].shape[1]))
    prompts = ["a photo of a cat.", "road"]
    ids = backbone.clip.tokenize(prompts)

    backbone.encode_text(prompts)

    assert lengths == [int((ids != 0).sum(1).max())]
    assert lengths[0] < ids.shape[1]


def test_bfloat16_features_are_close_to_float32(backbone: OpenClip) -> None:
    images = torch.randn(1, 3, 32, 48)

    with torch.no_grad():
        exact = backbone.features(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = backbone.features(images)

    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() < 0.02 * exact.norm()


def test_preprocessing_is_that_of_the_folder_or_clips_own(tmp_path: Path, clip: Path) -> None:
    other = write_clip(tmp_path / "other")
    config = json.loads((other / "open_clip_config.json").read_text())
    config["preprocess_cfg"] = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    (other / "open_clip_config.json").write_text(json.dumps(config))

    assert (load(other).mean, load(other).std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert load(clip).mean == tuple(open_clip.OPENAI_DATASET_MEAN)


def test_sizes_are_read_without_the_weights(clip: Path) -> None:
    sizes = known_sizes(BackboneSpec(name="openclip", path=str(clip)))

    assert (sizes.patch_px, sizes.image_px, sizes.width, sizes.depth, sizes.heads) == (
        8, 32, 16, 3, 2,
    )  # fmt: skip
    assert (sizes.channels, sizes.mlp_ratio, sizes.prefix_tokens) == (12, 4.0, 1)


def test_identity_is_of_contents_not_of_places(tmp_path: Path, clip: Path) -> None:
    same, other = write_clip(tmp_path / "same"), write_clip(tmp_path / "other", seed=1)
    identities = [
        identity(BackboneSpec(name="openclip", path=str(folder))) for folder in (clip, same, other)
    ]

    assert identities[0] == identities[1] != identities[2]


def test_identity_leaves_out_files_that_are_not_read(tmp_path: Path, clip: Path) -> None:
    whole = write_clip(tmp_path / "whole")
    for name in ("config.json", "README.md", "merges.txt", "optimizer.bin", "pytorch_model.bin"):
        (whole / name).write_text("of a whole download")
    save_file({}, whole / "model.safetensors")

    identities = [
        identity(BackboneSpec(name="openclip", path=str(folder))) for folder in (clip, whole)
    ]

    assert identities[0] == identities[1]


@pytest.mark.parametrize(
    "names",
    [
        ["a.bin", "b.safetensors", "model.safetensors", "open_clip_pytorch_model.bin"],
        ["a.bin", "b.safetensors", "pytorch_model.bin", "model.safetensors"],
        ["z.pth", "b.bin", "a.pth", "w.pt"],
        ["b.safetensors", "a.safetensors", "0.bin"],
        ["open_clip_pytorch_model.bin", "open_clip_model.safetensors"],
        ["model.pth", "0.safetensors"],
    ],
)
def test_file_of_weights_beside_a_config_is_the_one_that_open_clip_reads(
    tmp_path: Path, names: list[str]
) -> None:
    (tmp_path / "open_clip_config.json").touch()
    for name in names:
        (tmp_path / name).touch()

    [found] = Weights(tmp_path).files

    assert str(found) == open_clip.factory._find_checkpoint_in_dir(tmp_path)


def test_backbone_without_a_folder_is_not_ready() -> None:
    with pytest.raises(NotReady, match="needs the folder of its weights, but none is given"):
        known_sizes(BackboneSpec(name="openclip"))
    with pytest.raises(NotReady, match="needs the folder of its weights, but none is given"):
        OpenClip(BackboneSpec(name="openclip"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("open_clip_model.safetensors", b"\x08"),
        ("open_clip_model.safetensors", b""),
        ("open_clip_config.json", b'{"model_cfg": {"embed_dim": 3}}'),
        ("open_clip_config.json", b"{"),
    ],
)
def test_broken_folder_is_said_in_one_line(tmp_path: Path, file: str, content: bytes) -> None:
    folder = write_clip(tmp_path / "broken")
    (folder / file).write_bytes(content)

    with pytest.raises(NotReady, match=r"^backbone\.path: must be (a folder|weights)") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "{folder} has none"),
        ("{", "{file} is not JSON (Expecting property name enclosed in double quotes: line 1"),
        ("{}", "{file} lacks model_cfg"),
        ('{"model_cfg": {"vision_cfg": {}}}', "{file} lacks embed_dim"),
        (
            '{"model_cfg": {"vision_cfg": {"patch_size": 0}, "embed_dim": 64}}',
            "{file} has a wrong patch_px (must be above 0)",
        ),
        ('{"model_cfg": []}', "{file} has values of another kind than expected"),
        ('{"model_cfg": {"vision_cfg": {"head_width": 0}}}', "{file} states a size of 0"),
    ],
)
def test_config_that_cannot_be_read_is_told_in_plain_words(
    tmp_path: Path, content: str | None, told: str
) -> None:
    file = tmp_path / "open_clip_config.json"
    if content is not None:
        file.write_text(content)

    with pytest.raises(NotReady) as caught:
        known_sizes(BackboneSpec(path=str(tmp_path)))

    assert str(caught.value).startswith(
        "backbone.path: must be a folder with a readable open_clip_config.json, but "
        + told.format(folder=tmp_path, file=file)
    )
    assert str(caught.value).endswith("; name the folder that open_clip's `local-dir:` would take")


@pytest.mark.parametrize(
    ("name", "told"),
    [("open_clip_model.safetensors", "is a file"), ("gone", "does not exist")],
)
def test_path_that_is_no_folder_is_told_in_plain_words(clip: Path, name: str, told: str) -> None:
    with pytest.raises(NotReady, match=f"{name} {told}; name the folder that open_clip's"):
        known_sizes(BackboneSpec(path=str(clip / name)))


def test_folder_without_weights_is_not_ready(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "bare")
    (folder / "open_clip_model.safetensors").unlink()

    with pytest.raises(NotReady, match=r"has no file that ends in \.bin, \.pt, \.pth, \.saf"):
        identity(BackboneSpec(name="openclip", path=str(folder)))
    with pytest.raises(NotReady, match="must be weights that open_clip reads"):
        load(folder)


@pytest.mark.parametrize(
    "vision",
    [
        {"timm_model_name": "vit_base_patch16_224"},
        {"layers": [1, 2, 1, 1]},
        {"image_size": [8, 16]},
    ],
)
def test_towers_whose_sizes_are_not_stated_are_refused(
    tmp_path: Path, vision: dict[str, Any]
) -> None:
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": vision, "text_cfg": {}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))

    with pytest.raises(NotReady, match="not open_clip's own ViT for square images"):
        known_sizes(BackboneSpec(name="openclip", path=str(tmp_path)))


@pytest.mark.parametrize(
    "vision", [{"attentional_pool": True, "attn_pooler_heads": 2}, {"block_type": "custom"}]
)
def test_towers_that_the_read_out_does_not_fit_are_refused(
    tmp_path: Path, vision: dict[str, Any]
) -> None:
    folder = write_clip(tmp_path / "odd", **vision)

    with pytest.raises(NotReady, match="must hold a plain open_clip ViT"):
        load(folder)


def test_one_step_of_the_last_two_blocks_is_the_one_spelled_out(backbone: OpenClip) -> None:
    blocks = ("transformer.resblocks.1.", "transformer.resblocks.2.")

    step = one_step(backbone, torch.randn(1, 3, 40, 24), maskclip, blocks)

    assert step.n_trained == 24
    assert step.least > 9e-4
    assert step.error < 1e-9


@pytest.mark.slow
def test_true_size_is_found_by_name_and_is_maskclips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, folder = "openclip-b16-laion2b", tmp_path / "weights" / "openclip-b16-laion2b"
    config, model = open_clip.get_model_config("ViT-B-16"), open_clip.create_model("ViT-B-16")
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    monkeypatch.setenv("SPAR_BENCH_WEIGHTS", str(tmp_path / "weights"))
    image = torch.randn(1, 3, 75, 120)

    backbone = OpenClip(BackboneSpec(name=name))

    with torch.no_grad():
        found = backbone.features(image)
    expected = maskclip(weights_of(model), image, n_heads=12)
    assert found.shape == (1, 512, 4, 7)
    assert distance(found, expected) < CLOSE
    counted = count_encoder_flops(backbone, (80, 112))
    assert counted == pytest.approx(encoder_flops(backbone.sizes, (80, 112)), rel=TOLERANCE)
