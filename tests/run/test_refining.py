"""A refiner with weights: features before the cosine, scores after it, and its cost."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.errors import SparBenchError
from spar_bench.inference import SINGLE_PASS, Inference
from spar_bench.run.latency import TimedReading, random_classifier
from spar_bench.run.segment import Segmenter
from spar_bench.run.text import classifier_of
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec
from spar_bench.store import Store
from tests.refiners.test_contract import CARD, REFINER, write_weights
from tests.run.tiny import make_stage, of_kind, plan_of, protocol, settings

CPU = torch.device("cpu")


@pytest.fixture
def segmenter(clip: Path, tmp_path: Path) -> Segmenter:
    """The small CLIP with five random queries, and the refiner of another package."""
    (tmp_path / "scaled.py").write_text(REFINER)
    (tmp_path / "scaled.yaml").write_text(CARD)
    weights = write_weights(tmp_path / "w" / "scaled.safetensors", 3.0)
    queries = F.normalize(torch.randn(5, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    classifier = classifier_of(queries, [[name] for name in "abcde"], protocol())
    return Segmenter(
        OpenClip(BackboneSpec(path=str(clip))),
        classifier,
        refiner=PluginSpec(name=str(tmp_path / "scaled.py"), path=str(weights)),
        device=CPU,
    )


def test_features_are_refined_before_the_cosine_and_scores_after_it(segmenter: Segmenter) -> None:
    image = torch.randn(3, 45, 61, generator=torch.Generator().manual_seed(1))
    refiner: Any = segmenter.refiner

    with torch.inference_mode():
        guidance = segmenter.guidance(image)
        [scores] = segmenter.scores(image, [SINGLE_PASS], guidance, (50, 70))
        labels = segmenter.labels(scores, guidance, (50, 70))
        features = 3 * segmenter.backbone.features(image[None])[0]

    assert scores.features is not None
    assert torch.allclose(scores.values, segmenter.classifier.scores(features[None])[0], atol=1e-6)
    assert torch.equal(scores.features, features)
    # CLIP drops what fills no patch of 8, and so do the pixels that guide.
    assert refiner.calls == [
        ("features", (3, 40, 56), (50, 70)),
        ("scores", (12, 5, 7), (50, 70)),
    ]
    assert labels.shape == (50, 70)


def test_refiner_of_features_is_refused_where_windows_are_averaged_as_logits(
    segmenter: Segmenter,
) -> None:
    image = torch.randn(3, 40, 56)
    windows = Inference("sliding_window", 32, 16, "logits")

    with torch.inference_mode(), pytest.raises(SparBenchError, match="average: features"):
        list(segmenter.scores(image, [windows], segmenter.guidance(image), (40, 56)))


def test_its_cost_counts_in_gflops_and_parameters(
    clip: Path, photographs: Path, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "scaled.py").write_text(REFINER)
    (tmp_path / "scaled.yaml").write_text(CARD)
    weights = write_weights(tmp_path / "w" / "scaled.safetensors", 3.0)
    scaled = {"name": str(tmp_path / "scaled.py"), "path": str(weights), "power": 1.0}
    found = []
    for refiner in ("none", scaled):
        only = {"evaluate__methods": ["pretrained"], "evaluate__refiner": refiner}
        plan = plan_of(settings(clip, photographs, **only))
        [stage] = of_kind(plan, "cost")
        found.append(make_stage(plan, store, stage).summary)

    # Photographs of 40 x 70 px at a short side of 40: a grid of 5 x 8 patches of 8, 12 channels.
    flops = round(1e9 * (found[1]["gflops"] - found[0]["gflops"]))
    assert flops == 2 * 5 * 8 * 12
    assert round(1e6 * (found[1]["params_m"] - found[0]["params_m"])) == 12


def test_its_weights_count_in_peak_memory(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "heavy.py"
    path.write_text(
        "import torch\n\nVERSION = 1\n\n\nclass Refiner:\n"
        "    def __init__(self, device, weights):\n"
        "        self.table = torch.zeros(5 * 2**20, dtype=torch.uint8)\n"
    )
    backbone, classifier = OpenClip(BackboneSpec(path=str(clip))), random_classifier(3, 12, CPU)

    plain, heavy = (
        TimedReading(
            backbone, SINGLE_PASS, (40, 56), classifier=classifier, refiner=PluginSpec(name=name),
            device=CPU,
        )
        for name in ("none", str(path))
    )  # fmt: skip
    for one in (plain, heavy):
        one.sample()

    assert heavy.summary().peak_mib - plain.summary().peak_mib == pytest.approx(5)
