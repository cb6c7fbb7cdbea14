"""The objective: tags at the level of regions, on the same features as the read-out."""

import math
from types import SimpleNamespace

import pytest
import torch

from recipes.patchwork.objective import SOFTNESS, patch_features, tag_loss
from spar_bench.backbones.patchwork import Backbone
from spar_bench.spec.schema import BackboneSpec


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(BackboneSpec(name="patchwork"))


def test_value_path_features_are_those_of_the_read_out(backbone: Backbone) -> None:
    images = torch.randn(2, 3, 64, 64)

    features = patch_features(backbone.visual, images, value_path=True)

    read = backbone.features(images).flatten(2).transpose(1, 2)
    assert features.shape == (2, 64, 128)
    assert torch.allclose(features, read, atol=1e-4)


def test_mean_of_attended_features_is_the_embedding_of_the_image(backbone: Backbone) -> None:
    images = torch.randn(2, 3, 64, 64)

    features = patch_features(backbone.visual, images, value_path=False)

    embedded = backbone.visual(images)
    assert torch.allclose(features.mean(dim=1), embedded, atol=1e-4)


def loss_of(
    features: torch.Tensor, regions: torch.Tensor, tags: torch.Tensor, bias: float = -1.0
) -> float:
    model = SimpleNamespace(logit_scale=torch.tensor(math.log(5.0)), logit_bias=torch.tensor(bias))
    prompts = torch.eye(3)[:2, None]  # two classes, one prompt each, three channels
    return tag_loss(model, features, prompts, regions, tags).item()


def test_loss_is_that_of_a_worked_example() -> None:
    features = torch.tensor([[[2.0, 0, 0], [0, 0, 3], [0, 0, 1], [0, 0, 1]]])

    loss = loss_of(features, torch.zeros(1, 4, dtype=torch.long), torch.tensor([[[1.0, 0.0]]]))

    shown = SOFTNESS * math.log((math.exp(1 / SOFTNESS) + 3) / 4)
    first, second = 5 * shown - 1, -1.0
    expected = (math.log1p(math.exp(-first)) + math.log1p(math.exp(second))) / 2
    assert loss == pytest.approx(expected, rel=1e-5)


def test_region_is_not_answerable_for_what_another_shows() -> None:
    regions = torch.tensor([[0, 0, 1, 1]])
    tags = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    right = torch.eye(3)[torch.tensor([[0, 0, 1, 1]])]
    leaked = torch.eye(3)[torch.tensor([[0, 1, 0, 1]])]

    assert loss_of(right, regions, tags) < loss_of(leaked, regions, tags)
    one_region = torch.zeros(1, 4, dtype=torch.long)
    both = torch.tensor([[[1.0, 1.0]]])
    assert loss_of(right, one_region, both) == pytest.approx(loss_of(leaked, one_region, both))


def test_tags_that_are_not_to_be_asked_do_not_count() -> None:
    features, regions = torch.randn(1, 4, 3), torch.tensor([[0, 0, 0, 0]])
    asked = torch.tensor([[[1.0, torch.nan], [torch.nan, torch.nan]]])

    loss = loss_of(features, regions, asked)

    alone = [loss_of(features, regions, torch.tensor([[[1.0, other]]])) for other in (0.0, 1.0)]
    others = [loss_of(features, regions, torch.tensor([[[torch.nan, o]]])) for o in (0.0, 1.0)]
    assert loss == pytest.approx(2 * alone[0] - others[0], rel=1e-4)
    assert loss == pytest.approx(2 * alone[1] - others[1], rel=1e-4)


def test_gradient_of_features_points_to_the_tag() -> None:
    features = torch.full((1, 4, 3), 0.5, requires_grad=True)
    model = SimpleNamespace(logit_scale=torch.tensor(1.0), logit_bias=torch.tensor(0.0))
    tags = torch.tensor([[[1.0, 0.0]]])

    loss = tag_loss(
        model, features, torch.eye(3)[:2, None], torch.zeros(1, 4, dtype=torch.long), tags
    )
    loss.backward()  # type: ignore[no-untyped-call]

    assert features.grad is not None
    assert (features.grad[..., 0] < 0).all()
    assert (features.grad[..., 1] > 0).all()
