"""The steps of a linear probe: torch's own convolution, plain statistics, folded weights."""

from itertools import chain

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spar_bench.datasets.base import IGNORED
from spar_bench.errors import Diverged
from spar_bench.run.linear import Standard, Weights, linear_classifier
from spar_bench.run.probe_training import Labelled, ProbeTraining, mirrored
from spar_bench.spec.schema import ClassifierSpec
from tests.run.tiny import CPU, protocol

K, C = 4, 6


def images() -> list[Labelled]:
    """Return three images whose grids and labels differ in size, some pixels ignored."""
    generator = torch.Generator().manual_seed(3)
    sizes = [((3, 5), (20, 33)), ((4, 4), (31, 29)), ((2, 7), (17, 50))]
    found = []
    for grid_hw, label_hw in sizes:
        labels = torch.randint(0, K, label_hw, generator=generator).to(torch.uint8)
        labels[:5] = IGNORED
        found.append(Labelled(torch.randn(C, *grid_hw, generator=generator), labels))
    return found


def training(**recipe: object) -> ProbeTraining:
    stated = ClassifierSpec.model_validate({"name": "linear", "batch": 3, "epochs": 4} | recipe)
    return ProbeTraining(stated, range(3), n_classes=K, channels=C, device=CPU)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("constant", [1.0, 1.0, 1.0, 1.0]), ("cosine", [1.0, 0.85355339, 0.5, 0.14644661])],
)
def test_steps_are_those_of_torchs_own_convolution_on_all_labelled_pixels(
    schedule: str, factors: list[float]
) -> None:
    run, data = training(schedule=schedule, weight_decay=0.1, learning_rate=0.05), images()
    theirs = nn.Conv2d(C, K, 1)
    theirs.load_state_dict({"weight": torch.zeros(K, C, 1, 1), "bias": torch.zeros(K)})
    optimiser = torch.optim.AdamW(theirs.parameters(), lr=0.05, weight_decay=0.1)

    losses = []
    for factor in factors:
        run.take_step(data)
        scores, truth = list[Tensor](), list[Tensor]()
        for features, labels in data:
            size = (labels.shape[0], labels.shape[1])
            shown = F.interpolate(
                theirs(features[None]), size, mode="bilinear", align_corners=False
            )
            scores.append(shown[0].flatten(1).T[labels.flatten() != IGNORED])
            truth.append(labels.flatten()[labels.flatten() != IGNORED].long())
        loss = nn.CrossEntropyLoss()(torch.cat(scores), torch.cat(truth))
        optimiser.param_groups[0]["lr"] = 0.05 * factor
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))

    assert run.n_steps == 4
    assert losses[0] == pytest.approx(np.log(K))
    assert [loss for _, loss, _ in run.curve] == pytest.approx(losses, abs=1e-5)
    assert torch.allclose(run.weights.weight, theirs.weight.detach()[:, :, 0, 0], atol=1e-4)


def test_first_step_of_plain_gradient_descent_is_the_gradient_by_hand() -> None:
    run = training(optimiser="sgd", schedule="constant", weight_decay=0, learning_rate=1.0)
    features, labels = torch.randn(C, 2, 3), torch.tensor([[0, 1, 3], [3, IGNORED, 2]])

    run.take_step([Labelled(features, labels.to(torch.uint8))])

    gradient_w, gradient_b = torch.zeros(K, C), torch.zeros(K)
    for y, x in np.ndindex(2, 3):  # scores are 0 at first: each class has a probability of 1 / K
        if labels[y, x] != IGNORED:
            error = torch.full((K,), 1 / K) - F.one_hot(labels[y, x], K)
            gradient_w += torch.outer(error, features[:, y, x]) / 5
            gradient_b += error / 5
    assert torch.allclose(run.weights.weight, -gradient_w, atol=1e-6)
    assert torch.allclose(run.weights.bias, -gradient_b, atol=1e-6)


def test_step_without_a_labelled_pixel_has_no_loss_and_no_gradient() -> None:
    run, blank = training(weight_decay=0), torch.full((9, 13), IGNORED, dtype=torch.uint8)

    run.take_step([Labelled(torch.randn(C, 2, 3), blank)])

    assert run.curve[0][:2] == (0, 0.0)
    assert not run.weights.weight.any()


def test_rate_that_breaks_the_loss_is_told_in_one_line() -> None:
    run, data = training(optimiser="sgd", learning_rate=1e30, schedule="constant"), images()
    data[0].features[0, 0, 0] = 1e30
    run.take_step(data)

    with pytest.raises(Diverged, match=r"^linear_probe: the loss must stay finite, ") as told:
        run.take_step(data)

    assert "lower evaluate.classifier.learning_rate (1e+30)" in str(told.value)
    assert "\n" not in str(told.value)


def test_weights_that_only_the_last_step_broke_are_refused() -> None:
    run, data = training(optimiser="sgd", learning_rate=1e30, schedule="constant"), images()
    data[0].features[0, 0, 0] = 1e30

    run.take_step(data)

    with pytest.raises(Diverged, match=r"^linear_probe: the weights must stay finite, "):
        run.require_finite()


def test_statistics_are_those_of_all_patches_together() -> None:
    maps = [3 + 5 * one.features.double() for one in images()]
    values = torch.cat([one.flatten(1) for one in maps], dim=1)

    found = Standard.of(values.shape[1], values.sum(dim=1), values.square().sum(dim=1))

    assert found.mean.numpy() == pytest.approx(values.numpy().mean(axis=1))
    assert found.deviation.numpy() == pytest.approx(values.numpy().std(axis=1))


def test_channel_that_does_not_vary_is_not_magnified() -> None:
    values = torch.randn(C, 50).double()
    values[2] = 0.1
    sums = values.sum(dim=1), values.square().sum(dim=1)

    found = Standard.of(50, *sums)
    none = Standard.of(50, torch.full((C,), 50.0), torch.full((C,), 50.0))

    assert 1e-4 < found.deviation[2] < 1e-2
    assert none.deviation.tolist() == [1.0] * C


def test_folded_weights_score_plain_features_as_the_others_score_standardised_ones() -> None:
    plain = 40 + 3 * torch.randn(2, C, 5, 7)
    standard = Standard(torch.linspace(38, 42, C).double(), torch.linspace(1, 4, C).double())
    weights = Weights(torch.randn(K, C), torch.randn(K))

    folded = weights.folded(standard).scores(plain)

    expected = weights.scores(torch.stack([standard.apply(one) for one in plain]))
    assert torch.allclose(folded, expected, atol=1e-4)
    assert folded.shape == (2, K, 5, 7)


def test_classifier_is_a_convolution_and_its_probability_the_softmax_of_scores() -> None:
    weights, features = Weights(torch.randn(K, C), torch.randn(K)), torch.randn(1, C, 5, 7)
    plain = linear_classifier(weights, protocol(logit_scale=1.0), CPU)
    strict = linear_classifier(weights, protocol(logit_scale=1.0, background_threshold=0.6), CPU)

    scores = plain.scores(features.half())[0]

    expected = F.conv2d(features.half().float(), weights.weight[:, :, None, None], weights.bias)[0]
    assert torch.allclose(scores, expected, atol=1e-5)
    best, labels = expected.softmax(dim=0).max(dim=0)
    assert torch.equal(plain.labels(scores), labels)
    assert torch.equal(strict.labels(scores), labels.masked_fill(best < 0.6, 0))
    assert not torch.equal(plain.labels(scores), strict.labels(scores))


def test_images_are_mirrored_by_seed_and_epoch_in_the_stated_share() -> None:
    drawn = mirrored(2000, 0.3, 5, 1)

    assert drawn.mean() == pytest.approx(0.3, abs=0.04)
    assert np.array_equal(drawn, mirrored(2000, 0.3, 5, 1))
    assert not np.array_equal(drawn, mirrored(2000, 0.3, 5, 2))
    assert not np.array_equal(drawn, mirrored(2000, 0.3, 6, 1))
    assert not mirrored(9, 0.0, 0, 0).any()
    assert mirrored(9, 1.0, 0, 0).all()


def test_an_epoch_reads_each_image_once() -> None:
    run = ProbeTraining(
        ClassifierSpec(name="linear", batch=2, epochs=2), [0, 2, 3, 4, 7],
        n_classes=K, channels=C, device=CPU,
    )  # fmt: skip
    read = []

    while run.step < run.n_steps:
        read.append(run.upcoming())
        run.step += 1

    assert [len(batch) for batch in read] == [2, 2, 1] * 2
    assert sorted(chain(*read[:3])) == sorted(chain(*read[3:])) == [0, 2, 3, 4, 7]
    assert read[:3] != read[3:]
