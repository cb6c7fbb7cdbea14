"""AnyUp in the reading of an image: before the cosine or after it, on what the backbone saw."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.inference import SINGLE_PASS, Inference
from spar_bench.run.context import build_refiner
from spar_bench.run.segment import Segmenter
from spar_bench.run.text import TextClassifier
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec

CPU = torch.device("cpu")
IMAGE_HW, SEEN_HW, OUT_HW = (45, 61), (40, 56), (50, 70)
"""CLIP drops what fills no patch of 8."""


def segmenter(clip: Path, spec: PluginSpec) -> Segmenter:
    queries = F.normalize(torch.randn(5, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    classifier = TextClassifier(
        queries=queries,
        class_of=torch.arange(5),
        n_classes=5,
        logit_scale=40.0,
        background_threshold=0.0,
    )
    backbone = OpenClip(BackboneSpec(path=str(clip)))
    return Segmenter(backbone, classifier, refiner=spec, device=CPU)


@pytest.mark.parametrize(
    "inference", [SINGLE_PASS, Inference("sliding_window", 32, 16, "features")]
)
@pytest.mark.parametrize("of", ["features", "scores"])
def test_labels_are_those_of_maps_upsampled_before_or_after_the_cosine(
    clip: Path, of: str, inference: Inference
) -> None:
    spec = PluginSpec(name="anyup", weights="random", of=of, cell_px=2)
    one, plain = segmenter(clip, spec), segmenter(clip, PluginSpec(name="none"))
    image = torch.randn(3, *IMAGE_HW, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        guidance = one.guidance(image)
        [scores] = one.scores(image, [inference], guidance, OUT_HW)
        labels = one.labels(scores, guidance, OUT_HW)

        [raw] = plain.scores(image, [inference], guidance, OUT_HW)
        assert raw.features is not None
        refiner: Any = build_refiner(spec, CPU)
        if of == "features":
            upsampled = refiner.features(raw.features, guidance, OUT_HW)
            wanted = one.classifier.scores(upsampled[None])[0]
        else:
            wanted = refiner.scores(raw.values, raw.features, guidance, OUT_HW)
        wanted_labels = one.classifier.labels(
            F.interpolate(wanted[None], size=OUT_HW, mode="bilinear")[0]
        )

    assert guidance.pixels.shape[1:] == SEEN_HW
    assert wanted.shape == (5, 20, 28)
    assert torch.equal(labels, wanted_labels)
