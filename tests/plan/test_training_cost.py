"""Closed forms of training against torch's counter and true weights, for every kind of read-out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spar_bench import registry
from spar_bench.components.flops import trained_params, training_flops, update_flops
from spar_bench.run.optimisers import optimisers_of
from spar_bench.run.trainable import set_trainable
from spar_bench.spec.schema import BackboneSpec, StudentSpec
from tests.backbones.dinov3 import tiny
from tests.backbones.tiny_siglip import write_data_file, write_folder
from tests.run.tiny import write_clip

Build = Callable[[str], Any]
HEAD_BLOCKS = {"head_patch_tokens": 2}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build a new small backbone with a read-out."""
    folder = tmp_path_factory.mktemp("backbones")
    tiny.write(folder)
    write_data_file(folder / "siglip.yaml", "siglip2")
    specs: dict[str, dict[str, Any]] = {
        "maskclip": {"name": "openclip", "path": write_clip(folder / "clip")},
        "attention_pool_values": {
            "name": folder / "siglip.yaml", "path": write_folder(folder / "siglip", "tiny_siglip"),
        },
        "patch_tokens": {"name": folder / "small.yaml", "path": folder / "weights"},
        "head_patch_tokens": {"name": folder / "small.yaml", "path": folder / "weights"},
    }  # fmt: skip

    def build(read_out: str) -> Any:
        asked = {key: str(value) for key, value in specs[read_out].items()}
        spec = BackboneSpec(**asked, read_out=read_out)
        return registry.load("backbones", spec.name)(spec)

    return build


@pytest.mark.parametrize("trainable", ["all", "patch_embedding", "last_1_blocks"])
@pytest.mark.parametrize("read_out", ["attention_pool_values", "patch_tokens", "head_patch_tokens"])
def test_training_is_what_torch_counts(build: Build, read_out: str, trainable: str) -> None:
    backbone, image_hw = build(read_out), (32, 48)
    sizes = backbone.sizes
    set_trainable(backbone, trainable)

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        backbone.features(torch.zeros(1, 3, *image_hw)).square().mean().backward()

    # Here attention is plain products, of which fused kernels repeat the first.
    n_tokens = (32 // sizes.patch_px) * (48 // sizes.patch_px) + sizes.prefix_tokens
    n_blocks = 1 if trainable == "last_1_blocks" else sizes.depth
    n_blocks += HEAD_BLOCKS.get(read_out, 0)
    expected = counter.get_total_flops() + n_blocks * 2 * n_tokens**2 * sizes.width
    assert training_flops(sizes, image_hw, trainable) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("part", ["all", "position_embedding", "patch_embedding", "last_2_blocks"])
@pytest.mark.parametrize(
    "read_out", ["maskclip", "attention_pool_values", "patch_tokens", "head_patch_tokens"]
)
def test_what_trains_is_every_matrix_of_a_part(build: Build, read_out: str, part: str) -> None:
    backbone = build(read_out)
    if part == "position_embedding" and backbone.sizes.position_embedding == "rope":
        assert trained_params(backbone.sizes, part) == 0
        return

    set_trainable(backbone, part)

    matrices = [
        parameter.numel()
        for name, parameter in backbone.visual.named_parameters()
        if parameter.requires_grad and parameter.ndim > 1
        if not name.endswith(("token", "latent"))
    ]
    assert trained_params(backbone.sizes, part) == sum(matrices)


@pytest.mark.parametrize("part", ["all", "last_2_blocks", "mlp_of_last_1_blocks"])
@pytest.mark.parametrize(
    "read_out", ["maskclip", "attention_pool_values", "patch_tokens", "head_patch_tokens"]
)
def test_steps_of_muon_cost_what_torch_counts(build: Build, read_out: str, part: str) -> None:
    backbone = build(read_out)
    trained = set_trainable(backbone, part)
    recipe = StudentSpec(optimiser="muon", trainable=part)
    optimisers = optimisers_of(recipe, backbone, trained)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)

    with FlopCounterMode(display=False) as counter:
        for optimiser in optimisers.values():
            optimiser.step()

    assert update_flops(backbone.sizes, "muon", part) == counter.get_total_flops() > 0
    assert update_flops(backbone.sizes, "adamw", part) == 0
    groups = [group for optimiser in optimisers.values() for group in optimiser.param_groups]
    updated = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(updated) == sorted(map(id, trained))
