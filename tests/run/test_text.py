"""Class names to labels, against a softmax over queries written out."""

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench.run.text import Classifier, classifier
from tests.test_testing import ToyBackbone

CLASSES = [["sky"], ["road", "street", "asphalt"], ["tree", "bush"]]


class Told(ToyBackbone):
    """A toy that remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[str] = []

    def encode_text(self, prompts: list[str]) -> Tensor:
        self.prompts += prompts
        return super().encode_text(prompts)


def build(threshold: float = 0.0, scale: float = 40.0) -> Classifier:
    return classifier(
        ToyBackbone(), CLASSES, ["a {}.", "{}"], logit_scale=scale, background_threshold=threshold
    )


def test_query_is_the_normalised_mean_of_its_prompts() -> None:
    found, toy = build(), ToyBackbone()

    names = [name for names in CLASSES for name in names]
    expected = torch.stack(
        [F.normalize(toy.encode_text([f"a {n}.", n]).mean(0), dim=0) for n in names]
    )
    assert torch.allclose(found.queries, expected, atol=1e-6)
    assert found.class_of.tolist() == [0, 1, 1, 1, 2, 2]
    assert found.n_classes == 3


def test_default_templates_are_open_clips_eighty() -> None:
    told = Told()

    classifier(told, [["cat"]], "openclip_80", logit_scale=1, background_threshold=0)

    assert told.prompts == [form("cat") for form in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert len(told.prompts) == 80


def test_cosines_do_not_depend_on_the_length_of_features() -> None:
    found, features = build(), torch.randn(1, 6, 3, 5)

    cosines = found.cosines(features)

    expected = F.cosine_similarity(features[:, None], found.queries[None, :, :, None, None], dim=2)
    assert torch.allclose(cosines, expected, atol=1e-6)
    assert torch.allclose(found.cosines(7 * features), cosines, atol=1e-6)
    assert found.cosines(features.half()).dtype == torch.float32


@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.9])
def test_class_is_as_probable_as_the_best_of_its_queries(threshold: float, scale: float) -> None:
    found, cosines = build(threshold, scale), torch.rand(6, 7, 11) * 0.2

    labels = found.labels(cosines)

    probability = (scale * cosines).softmax(dim=0)
    by_class = torch.stack([probability[0], probability[1:4].amax(0), probability[4:].amax(0)])
    best, expected = by_class.max(dim=0)
    expected[best < threshold] = 0
    assert torch.equal(labels, expected)
    assert len(set(labels.flatten().tolist())) > 1 or threshold > 0


def test_synonyms_are_not_summed() -> None:
    found = build(scale=10.0)
    cosines = torch.tensor([0.3, 0.28, 0.28, 0.28, 0.0, 0.0])[:, None, None]

    assert found.labels(cosines).item() == 0  # three streets together would outweigh the sky
