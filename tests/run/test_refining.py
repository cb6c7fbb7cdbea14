"""A refiner with weights: features before the cosine, scores after it, and its cost."""

from pathlib import Path
from typing import Any

import numpy as np
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
from tests.run.tiny import make_stage, of_kind, plan_of, protocol, scheduler, settings

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


BREAKING = """
VERSION = 1


class Refiner:
    def __init__(self, device, weights): ...

    def {method}(self, values, *_):
        return values / 0 * 0
"""


@pytest.mark.parametrize("method", ["features", "scores"])
def test_refiner_that_breaks_finite_values_is_named_in_one_line(
    clip: Path, tmp_path: Path, method: str
) -> None:
    (tmp_path / "breaking.py").write_text(BREAKING.format(method=method))
    reader = Segmenter(
        OpenClip(BackboneSpec(path=str(clip))),
        random_classifier(3, 12, CPU),
        refiner=PluginSpec(name=str(tmp_path / "breaking.py")),
        device=CPU,
    )

    blank = reader.prepare(np.zeros((40, 56, 3), np.uint8), (40, 56))
    [error] = reader.read(blank, (40, 56), [SINGLE_PASS])

    assert str(error) == (
        "evaluate.refiner: breaking must give finite values for finite ones, but does not; check "
        "its weights and settings, or use another refiner"
    )


COUNTING = """
from pathlib import Path

VERSION = 1
FLOPS = "0"


class Refiner:
    n_params = 0

    def __init__(self, device, weights, *, size: int = 1):
        with Path(__file__).with_suffix(".txt").open("a") as file:
            file.write(f"{size}")
"""


def test_session_builds_each_refiner_once(
    clip: Path, photographs: Path, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    stated = {"evaluate__methods": ["pretrained", "teacher"], "measure": {"seconds": 0.01}}
    points = [
        settings(
            clip,
            photographs,
            evaluate__refiner={"name": str(tmp_path / "counting.py"), "size": size},
            teacher__stride_px=stride_px,
            **stated,
        )
        for stride_px in (12, 16)
        for size in (1, 2)
    ]
    plan = plan_of(*points)
    assert plan.latency is not None

    scheduler(plan, store)[0].make([plan.latency])

    assert len(plan.session.settings.timed) == 6  # one single pass and two strides of each
    assert (tmp_path / "counting.txt").read_text() == "12"


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
