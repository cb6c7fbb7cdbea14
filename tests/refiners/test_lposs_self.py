"""LPOSS whose graph is of the backbone's own features."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spar_bench import registry
from spar_bench.backbones.patchwork import Backbone as Patchwork
from spar_bench.components.refiner import RefinedSizes, refiner_identity, refining_flops
from spar_bench.errors import SparBenchError
from spar_bench.inference import SINGLE_PASS
from spar_bench.refiners import lposs_self
from spar_bench.refiners._patch_graph import PatchGraph
from spar_bench.refiners.base import Guidance
from spar_bench.run.segment import Segmenter
from spar_bench.run.text import TextClassifier
from spar_bench.spec.plugins import PluginSpec
from spar_bench.spec.schema import BackboneSpec
from spar_bench.testing import RefinerContract
from tests.refiners.test_lposs_graphs import conjugate_gradients, drawn

CPU = torch.device("cpu")


class TestLpossSelf(RefinerContract):
    @pytest.fixture
    def refiner(self) -> object:
        return lposs_self.Refiner(CPU, None)


class TestLpossSelfOfPixels(RefinerContract):
    @pytest.fixture
    def refiner(self) -> object:
        return lposs_self.Refiner(CPU, None, pixels=True)


def guidance(height: int, width: int) -> Guidance:
    return Guidance(drawn(3, height, width, seed=2), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_scores_are_propagated_over_the_graph_of_the_features() -> None:
    features, scores = drawn(6, 3, 5), drawn(4, 3, 5, seed=1)

    found = lposs_self.Refiner(CPU, None, k=5).scores(scores, features, guidance(24, 40), (9, 9))

    # Patches are 8 pixels apart.
    graph = PatchGraph(k=5, gamma=3.0, sigma=0.01).of(features, 8)
    expected = conjugate_gradients(graph.double(), scores.flatten(1), 10)
    assert torch.allclose(found.flatten(1).double(), expected, rtol=1e-4, atol=1e-4)


def test_it_refuses_to_do_without_features() -> None:
    with pytest.raises(SparBenchError, match=r"average: must be features .* lposs_self"):
        lposs_self.Refiner(CPU, None).scores(drawn(4, 24, 40), None, guidance(24, 40), (24, 40))


def test_it_has_no_weights_and_builds_on_lposs() -> None:
    identity = refiner_identity(PluginSpec(name="lposs_self"))

    assert identity.files == {}
    assert identity.versions.keys() == {"lposs_self", "lposs"}


def test_its_settings_are_those_of_lposs_without_weights() -> None:
    own, theirs = (registry.parameters("refiners", name) for name in ("lposs_self", "lposs"))

    assert own == {key: value for key, value in theirs.items() if key not in ("path", "weights")}


def test_stated_flops_are_what_torch_counts() -> None:
    refiner = lposs_self.Refiner(CPU, None, tolerance=0.0)
    features, scores = drawn(128, 9, 14), drawn(7, 9, 14, seed=1)
    sizes = RefinedSizes(128, 7, (9, 14), (72, 112), (80, 120))

    with FlopCounterMode(display=False) as counter:
        refiner.scores(scores, features, guidance(72, 112), (80, 120))

    stated = refining_flops(PluginSpec(name="lposs_self"), sizes)
    assert counter.get_total_flops() == stated == 2 * (9 * 14) ** 2 * (128 + 10 * 7)


def test_patchwork_is_refined_by_its_own_features() -> None:
    queries = F.normalize(drawn(5, 128), dim=1)
    segmenter = Segmenter(
        Patchwork(BackboneSpec(name="patchwork")),
        TextClassifier(
            queries=queries,
            class_of=torch.arange(5),
            n_classes=5,
            logit_scale=40.0,
            background_threshold=0.0,
        ),
        refiner=PluginSpec(name="lposs_self", k=20),
        device=CPU,
    )
    image = drawn(3, 64, 80, seed=1)

    refined, plain = labels(segmenter, image), labels(without_refiner(segmenter), image)

    assert refined.shape == plain.shape == (64, 80)
    # Propagated scores are smoother: fewer neighbours differ.
    assert borders(refined) < borders(plain)


def without_refiner(segmenter: Segmenter) -> Segmenter:
    return Segmenter(segmenter.backbone, segmenter.classifier, device=CPU)


def labels(segmenter: Segmenter, image: Tensor) -> Tensor:
    with torch.inference_mode():
        guidance = segmenter.guidance(image)
        [scores] = segmenter.scores(image, [SINGLE_PASS], guidance, (64, 80))
        return segmenter.labels(scores, guidance, (64, 80))


def borders(labels: Tensor) -> int:
    return int((labels[1:] != labels[:-1]).sum() + (labels[:, 1:] != labels[:, :-1]).sum())
