"""The teacher against plain ways and the roof; an evaluation in one pass against its encoder."""

from collections.abc import Iterator

import torch

import spar_bench as sb
from benchmarks.figures import Figure, in_turns
from benchmarks.plain import ten_at_once, window_by_window
from spar_bench.backbones.base import Backbone
from spar_bench.components.flops import encoder_flops
from spar_bench.datasets.base import DatasetSettings
from spar_bench.datasets.patchwork import Dataset
from spar_bench.inference import SINGLE_PASS, Inference, Resize
from spar_bench.plan.cost import windows_flops
from spar_bench.run.latency import random_classifier
from spar_bench.run.pixel_counts import PixelCounts, read_images
from spar_bench.run.segment import Segmenter
from spar_bench.spec.schema import BackboneSpec

_PRODUCT = 1024


def roof_gflops() -> float:
    """Return the speed of a matrix product in float32, as torch makes it on all its threads."""
    factor = torch.ones(_PRODUCT, _PRODUCT)
    seconds = in_turns({"product": lambda: factor @ factor}, rounds=31)["product"]
    return 2 * _PRODUCT**3 / seconds / 1e9


def reading() -> Iterator[Figure]:
    """Measure with the embedded backbone, and a ViT-B/16 with random weights."""
    yield from _teacher(sb.load_backbone("patchwork"), (256, 320), 64, 12, name="patchwork")
    large = sb.load_backbone(BackboneSpec(name="openclip-b16-laion2b", weights="random"))
    yield from _teacher(large, (336, 448), 224, 24, name="ViT-B/16", rounds=2)
    yield from _single_pass(sb.load_backbone("patchwork"))


def _teacher(
    backbone: Backbone,
    image_hw: tuple[int, int],
    window_px: int,
    stride_px: int,
    *,
    name: str,
    rounds: int = 5,
) -> Iterator[Figure]:
    image = torch.rand(3, *image_hw)
    factor = torch.ones(_PRODUCT, _PRODUCT)
    with torch.inference_mode():
        seconds = in_turns(
            {
                "ours": lambda: sb.sliding_window(
                    backbone, image[None], window_px=window_px, stride_px=stride_px
                ),
                "ten": lambda: ten_at_once(backbone, image, window_px, stride_px),
                "loop": lambda: window_by_window(backbone, image, window_px, stride_px),
                "product": lambda: [factor @ factor for _ in range(10)],
            },
            rounds=rounds,
        )
    what = f"{name}, {image_hw[0]}x{image_hw[1]} px, window {window_px}, stride {stride_px}"
    inference = Inference("sliding_window", window_px, stride_px, "features")
    flops = windows_flops(backbone.sizes, inference, image_hw)
    roof = 10 * 2 * _PRODUCT**3 / seconds["product"]
    yield Figure(
        name=f"teacher against the authors' way, {name}",
        value=seconds["ten"] / seconds["ours"],
        bar=1.1,
        at_least=True,
        how=f"their time (ten windows at once) over ours: {what}",
    )
    yield Figure(
        name=f"teacher against a plain loop, {name}",
        value=seconds["loop"] / seconds["ours"],
        how="time of one window at a time over ours",
    )
    yield Figure(
        name=f"teacher's share of the roof, {name}",
        value=flops / seconds["ours"] / roof,
        how=f"counted GFLOP/s over those of a product of {_PRODUCT}x{_PRODUCT}",
    )


def _single_pass(backbone: Backbone) -> Iterator[Figure]:
    image = torch.rand(1, 3, 256, 320)
    dataset = Dataset("val", DatasetSettings(count=4))
    n_classes, channels = len(dataset.classes), backbone.sizes.channels
    classifier = random_classifier(25, channels, torch.device("cpu"), n_classes=n_classes)
    segmenter = Segmenter(backbone, classifier, device=torch.device("cpu"))

    def evaluate() -> None:
        counts = PixelCounts([SINGLE_PASS], len(dataset), len(dataset.classes))
        for one in read_images(segmenter, dataset, Resize(256), counts):
            counts.add(one)

    seconds = in_turns(
        {
            "encoder": lambda: [sb.single_pass(backbone, image) for _ in range(len(dataset))],
            "evaluation": evaluate,
            "scenes": lambda: [dataset.sample(index) for index in range(len(dataset))],
        }
    )
    yield Figure(
        name="evaluation in one pass against its encoder",
        value=(seconds["evaluation"] - seconds["scenes"]) / seconds["encoder"],
        bar=1.3,
        how="time without drawing scenes: resize, encode, score, upsample, label, count",
    )
    flops = len(dataset) * encoder_flops(backbone.sizes, (256, 320))
    yield Figure(
        name="single pass's share of the roof, patchwork",
        value=flops / seconds["encoder"] / 1e9 / roof_gflops(),
        how="1,281 tokens",
    )
