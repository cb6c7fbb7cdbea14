"""GFLOPs of reading an image: the closed form, checked against torch's own counter."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spar_bench.backbones.base import Backbone
from spar_bench.components.flops import encoder_flops
from spar_bench.errors import SparBenchError
from spar_bench.files import replace_text
from spar_bench.plan.cost import pass_hw, windows_of
from spar_bench.run.context import Context
from spar_bench.stages import cost

TOLERANCE = 0.02
"""Largest relative difference between the closed form and the counter."""


def make_cost(stages: list[cost.Stage], context: Context) -> list[cost.Summary]:
    """Write `cost.json`: GFLOPs of an image and of one pass, windows, parameters.

    Raises:
        SparBenchError: closed form and counter differ by more than TOLERANCE.
    """
    return [_make_cost(stage, context) for stage in stages]


def _make_cost(stage: cost.Stage, context: Context) -> cost.Summary:
    settings = stage.settings
    backbone = context.backbone(stage.places.backbone)
    inference, image_hw = settings.inference, settings.image_hw
    read_hw = pass_hw(backbone.sizes, inference, image_hw)
    expected, counted = (
        encoder_flops(backbone.sizes, read_hw),
        count_encoder_flops(backbone, read_hw),
    )
    if abs(counted - expected) > TOLERANCE * expected:
        raise SparBenchError(
            f"backbone {settings.backbone.name}: its sizes must give torch's count of FLOPs "
            f"within {TOLERANCE:.0%}, but give {expected / 1e9:.4g} GFLOPs while torch counts "
            f"{counted / 1e9:.4g}, at {read_hw[0]}x{read_hw[1]} px; correct its data file"
        )
    flops = settings.flops(stage.places.refiner)
    n_params = _n_params(stage, context, backbone)
    summary = cost.Summary(
        gflops=None if flops is None else flops / 1e9,
        encoder_gflops_a_pass=expected / 1e9,
        encoder_gflops_a_pass_counted=counted / 1e9,
        n_windows=windows_of(backbone.sizes, inference, image_hw),
        params_m=None if n_params is None else n_params / 1e6,
    )
    replace_text(context.store.output(stage) / cost.COST_FILE, summary.model_dump_json())
    return summary


def _n_params(stage: cost.Stage, context: Context, backbone: Backbone) -> int | None:
    """Return the number of parameters of the image tower and the refiner; None if it has none."""
    n_refiner = getattr(context.refiner(stage.places.refiner), "n_params", None)
    if n_refiner is None:
        return None
    return int(n_refiner) + sum(p.numel() for p in backbone.visual.parameters())


def count_encoder_flops(backbone: Backbone, image_hw: tuple[int, int]) -> int:
    """Return what torch counts while one image or window is encoded.

    In eager mode, batch 1, with attention as plain matrix products: the counter counts 0 for the
    fast path of `nn.MultiheadAttention`, and before torch 2.15 the CPU's fused kernel too. Tensors
    have shapes but no values, so that an image of any size costs neither memory nor time.

    Raises:
        SparBenchError: no attention was counted.
    """
    device = next(backbone.visual.parameters()).device
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), _plain_attention():
        images = torch.zeros(1, 3, *image_hw, device=device)
        with FlopCounterMode(display=False) as counter:
            backbone.features(images)
    by_name = {str(name) for name in counter.get_flop_counts()["Global"]}
    if not any("attention" in name or "bmm" in name for name in by_name):
        raise SparBenchError(
            "cost: torch's counter must count a ViT's attention, but counted only "
            f"{', '.join(sorted(by_name))}; use another torch, or correct the backbone's plug-in"
        )
    return int(counter.get_total_flops())


@contextmanager
def _plain_attention() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
