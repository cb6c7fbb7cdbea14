"""mIoU and its paired bootstrap against hand-computed values and independent implementations."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassJaccardIndex

from spar_bench.accuracy import Counts, Difference, class_iou, difference_of, miou, resample

IGNORED = 255
Labels = NDArray[np.int64]


def count(predictions: Labels, truths: Labels, n_classes: int) -> Counts:
    """Count pixels by plain loops over images `(N, H, W)` and classes."""
    shape = (len(truths), n_classes)
    correct, predicted, true = (np.zeros(shape, np.int64) for _ in range(3))
    for i, (prediction, truth) in enumerate(zip(predictions, truths, strict=True)):
        seen = truth != IGNORED
        for k in range(n_classes):
            correct[i, k] = ((prediction == k) & (truth == k) & seen).sum()
            predicted[i, k] = ((prediction == k) & seen).sum()
            true[i, k] = ((truth == k) & seen).sum()
    return Counts(correct, predicted, true)


def difference(a: list[Counts], b: list[Counts], n_resamples: int = 2000) -> Difference:
    return difference_of(
        *([resample(one, n_resamples=n_resamples, seed=5) for one in side] for side in (a, b))
    )


def draw(seed: int, n_images: int = 6, n_classes: int = 5) -> tuple[Labels, Labels]:
    """Draw predictions that are right about half the time, and truths, `(N, 7, 9)`."""
    rng = np.random.default_rng(seed)
    truths = rng.integers(0, n_classes, (n_images, 7, 9))
    wrong = rng.integers(0, n_classes, truths.shape)
    return np.where(rng.random(truths.shape) < 0.5, truths, wrong), truths


def test_three_by_three_example_with_an_ignored_pixel_by_hand() -> None:
    truth = np.array([[[0, 0, 1], [0, 1, 1], [2, 2, IGNORED]]])
    prediction = np.array([[[0, 1, 1], [0, 1, 0], [2, 0, 2]]])

    counts = count(prediction, truth, 4)

    # class 0: 2 right, 4 predicted, 3 true; class 1: 2, 3, 3; class 2: 1, 1, 2; class 3 nowhere
    np.testing.assert_allclose(class_iou(counts), [2 / 5, 2 / 4, 1 / 2, np.nan])
    assert miou(counts) == pytest.approx((0.4 + 0.5 + 0.5) / 3)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    truth, prediction = np.array([[[0, 0, 0, 0]]]), np.array([[[0, 0, 1, 1]]])

    assert miou(count(prediction, truth, 3)) == pytest.approx((0.5 + 0.0) / 2)


@pytest.mark.parametrize("seed", range(4))
def test_miou_equals_torchmetrics_macro_jaccard_with_absent_classes_and_ignored_pixels(
    seed: int,
) -> None:
    predictions, truths = draw(seed)
    truths[truths == 2] = 1
    truths[:, :2, :3] = IGNORED
    metric = MulticlassJaccardIndex(num_classes=7, average="macro", ignore_index=IGNORED)

    expected = metric(torch.from_numpy(predictions), torch.from_numpy(truths))

    assert miou(count(predictions, truths, 7)) == pytest.approx(float(expected), abs=1e-6)


def plain_miou(counts: Counts, picked: list[int]) -> float:
    """Return the mIoU of a resample by loops, its classes decided by the truth alone."""
    ious = []
    for k in range(counts.true.shape[1]):
        correct, predicted, true = (
            sum(int(pixels[i, k]) for i in picked)
            for pixels in (counts.correct, counts.predicted, counts.true)
        )
        if true:
            ious.append(correct / (predicted + true - correct))
        elif not counts.true[:, k].any() and counts.predicted[:, k].any():
            ious.append(0.0)
    return sum(ious) / len(ious)


def test_bootstrap_equals_a_plain_loop_over_resamples() -> None:
    truths = draw(0)[1]
    truths[1:][truths[1:] == 4] = 3  # one class is rare,
    truths[truths == 2] = 1  # and one is never true
    a, b = (count(draw(seed)[0] if seed else truths, truths, 5) for seed in (0, 3))
    drawn = np.random.default_rng(5).multinomial(6, np.full(6, 1 / 6), size=300)
    resamples = [np.repeat(np.arange(6), times).tolist() for times in drawn]
    differences = [plain_miou(a, picked) - plain_miou(b, picked) for picked in resamples]

    found = difference([a], [b], n_resamples=300)

    assert any(0 not in picked for picked in resamples)

    assert found.value == pytest.approx(miou(a) - miou(b))
    expected = np.quantile(differences, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], expected)


def test_an_arm_against_itself_differs_by_exactly_nothing() -> None:
    counts = count(*draw(1), 5)

    found = difference([counts], [counts])

    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_seeds_of_one_side_are_averaged() -> None:
    truths = draw(0)[1]
    first, second, other = (count(draw(seed)[0], truths, 5) for seed in (1, 2, 3))

    both = difference([first, second], [other])

    assert both.value == pytest.approx((miou(first) + miou(second)) / 2 - miou(other))
    assert both.low < both.value < both.high


def test_other_images_are_refused() -> None:
    a, b = count(*draw(1), 5), count(*draw(2), 5)

    with pytest.raises(ValueError, match="same images"):
        difference([a], [b])
    with pytest.raises(ValueError, match="one is empty"):
        difference([a], [])


def test_images_without_labels_do_not_spoil_the_interval() -> None:
    predictions, truths = draw(4, n_images=3)
    truths[1:] = IGNORED
    a, b = count(truths, truths, 5), count(predictions, truths, 5)

    found = difference([a], [b])

    assert np.isfinite([found.low, found.high]).all()
    assert found.low == pytest.approx(found.value)  # one image carries all labels


def test_miou_without_a_labelled_pixel_is_refused() -> None:
    nothing = np.zeros((2, 3), np.int64)

    with pytest.raises(ValueError, match="labelled pixel"):
        miou(Counts(nothing, nothing, nothing))
