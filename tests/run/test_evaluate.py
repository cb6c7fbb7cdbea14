"""Evaluation from images to mIoU, against torchmetrics on predictions made in plain torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

import spar_bench as sb
from spar_bench.accuracy import class_iou
from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.datasets._images import read_image, read_mask
from spar_bench.datasets.base import Mask
from spar_bench.errors import DataError, SparBenchError
from spar_bench.inference import SINGLE_PASS, Inference
from spar_bench.run.images import normalise, resize, to_tensor
from spar_bench.run.inference import single_pass, sliding_window
from spar_bench.run.pixel_counts import confusion_of, counts_of
from spar_bench.run.segment import DIVERGED, Segmenter
from spar_bench.run.text import classifier_of, embed
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stage import Finished
from spar_bench.stages.evaluate import read_counts, read_features, read_preview
from spar_bench.store import Store
from tests.run.tiny import (
    CLASSES,
    CPU,
    make_stage,
    of_kind,
    plan_of,
    protocol,
    scheduler,
    settings,
    write_photographs,
)


@pytest.fixture(scope="module")
def backbone(clip: Path) -> OpenClip:
    """The small model."""
    return OpenClip(BackboneSpec(name="openclip", path=str(clip)))


def labels_by_hand(
    backbone: OpenClip, image: Any, truth_hw: tuple[int, int], average: str | None
) -> torch.Tensor:
    """Label an image at short side 40 in one pass, or with window 32 and stride 12."""
    scale = 40 / min(image.shape[:2])
    image_hw = round(image.shape[0] * scale), round(image.shape[1] * scale)
    pixels = torch.tensor(image).permute(2, 0, 1)[None] / 255
    if image_hw != image.shape[:2]:
        pixels = F.interpolate(pixels, size=image_hw, mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(v)[:, None, None] for v in (backbone.mean, backbone.std))
    pixels = (pixels - mean) / std
    text = F.normalize(torch.cat([backbone.encode_text([f"a {name}."]) for name in CLASSES]), dim=1)

    def cosines(features: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bchw,kc->bkhw", F.normalize(features, dim=1), text)

    with torch.no_grad():
        if average is None:
            scores = cosines(backbone.features(pixels))
        elif average == "features":
            found = sliding_window(backbone, pixels, window_px=32, stride_px=12)
            scores = cosines(found.clone())
        else:
            total, counts = torch.zeros(1, len(CLASSES), *image_hw), torch.zeros(image_hw)
            for top in sorted({*range(0, image_hw[0] - 31, 12), image_hw[0] - 32}):
                for left in sorted({*range(0, image_hw[1] - 31, 12), image_hw[1] - 32}):
                    place = slice(top, top + 32), slice(left, left + 32)
                    said = cosines(backbone.features(pixels[:, :, *place]))
                    total[:, :, *place] += F.interpolate(said, size=(32, 32), mode="bilinear")
                    counts[place] += 1
            scores = total / counts
        return F.interpolate(scores, size=truth_hw, mode="bilinear")[0].argmax(0)


def evaluated(
    clip: Path, photographs: Path, store: Store, method: str, average: str | None
) -> Finished:
    """Make the one evaluation of a method."""
    changes = {"evaluate__average": average} if average else {}
    plan = plan_of(settings(clip, photographs, evaluate__methods=[method], **changes))
    [stage] = of_kind(plan, "evaluate")
    return make_stage(plan, store, stage)


READINGS = [("pretrained", None), ("teacher", "logits"), ("teacher", "features")]


@pytest.mark.parametrize(("method", "average"), READINGS)
def test_first_images_features_are_kept_however_windows_vote(
    clip: Path,
    photographs: Path,
    store: Store,
    backbone: OpenClip,
    method: str,
    average: str | None,
) -> None:
    image = read_image(photographs / "val_images" / "0.png")
    pixels = normalise(to_tensor(image), backbone.mean, backbone.std)[None]

    found = read_features(evaluated(clip, photographs, store, method, average))

    if method == "pretrained":
        expected = single_pass(backbone, pixels)
    else:
        expected = sliding_window(backbone, pixels, window_px=32, stride_px=12)
    assert found.shape == (12, 5, 8)
    assert found == pytest.approx(expected[0].numpy(), rel=1e-3, abs=1e-4)  # in half precision


@pytest.mark.parametrize(("method", "average"), READINGS)
def test_miou_is_torchmetrics_on_labels_that_are_those_made_by_hand(
    clip: Path,
    photographs: Path,
    store: Store,
    backbone: OpenClip,
    method: str,
    average: str | None,
) -> None:
    made = evaluated(clip, photographs, store, method, average)

    metric = MulticlassJaccardIndex(len(CLASSES), average="macro", ignore_index=255)
    each = MulticlassJaccardIndex(len(CLASSES), average="none", ignore_index=255)
    preview, true = read_preview(made), []
    for index in range(3):
        image = read_image(photographs / "val_images" / f"{index}.png")
        truth = read_mask(photographs / "val_masks" / f"{index}.png")
        labels = labels_by_hand(backbone, image, (truth.shape[0], truth.shape[1]), average)
        predicted = preview.predictions[index]
        differing = (predicted != labels.numpy()).mean()
        assert differing < 0.002  # rounding moves a pixel between equal classes
        metric.update(torch.tensor(predicted)[None], torch.tensor(truth)[None])
        each.update(torch.tensor(predicted)[None], torch.tensor(truth)[None])
        true.append(np.bincount(truth[truth != 255], minlength=3))
        assert np.array_equal(preview.truths[index], truth)
        assert np.array_equal(preview.images[index], image)
    counts = read_counts(made)

    assert made.summary["miou"] == pytest.approx(float(metric.compute()), abs=1e-6)
    assert class_iou(counts) == pytest.approx(each.compute().numpy(), abs=1e-6)
    assert np.array_equal(counts.true, np.stack(true))
    assert made.summary["n_images"] == 3


def test_pixels_of_an_image_are_counted_without_the_ignored_ones() -> None:
    truth = np.array([[0, 0, 1], [2, 255, 255]], np.uint8)
    labels = np.array([[0, 1, 1], [0, 2, 1]], np.uint8)

    confusion = confusion_of(truth, labels, 3)
    correct, predicted, true = counts_of(confusion).tolist()

    assert confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert (correct, predicted, true) == ([1, 1, 0], [2, 2, 0], [2, 1, 1])


def segmenter(backbone: OpenClip, **options: Any) -> Segmenter:
    classes = [[name] for name in CLASSES]
    texts = classifier_of(embed(backbone, classes, ["a {}."]), classes, protocol())
    return Segmenter(backbone, texts, device=CPU, **options)


def masks(read: list[Mask | SparBenchError]) -> list[Mask]:
    """Return masks, none of which is an error."""
    return [one for one in read if isinstance(one, np.ndarray)]


def inference(window_px: int, stride_px: int, average: Any) -> Inference:
    return Inference("sliding_window", window_px, stride_px, average,
                     2 if average == "features" else None)  # fmt: skip


@pytest.mark.parametrize("average", ["logits", "features"])
@pytest.mark.parametrize("window_px", [32, 64])
def test_several_strides_at_once_label_as_each_alone(
    backbone: OpenClip, average: str, window_px: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 75, 3), dtype=np.uint8)
    arms = [inference(window_px, stride, average) for stride in (28, 12, 16)]
    reader = segmenter(backbone)

    together = masks(reader.read(reader.prepare(image, (40, 60)), (50, 75), arms))

    for arm, labels in zip(arms, together, strict=True):
        [alone] = masks(reader.read(reader.prepare(image, (40, 60)), (50, 75), [arm]))
        assert labels.shape == (50, 75)
        assert (labels != alone).mean() < 0.002


def test_window_as_large_as_the_image_labels_as_a_single_pass(backbone: OpenClip) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    reader = segmenter(backbone)

    [whole] = masks(reader.read(reader.prepare(image, (32, 48)), (32, 48), [SINGLE_PASS]))
    arm = Inference("sliding_window", 48, 48, "features", 1)  # r = 2 is a small blur by itself
    [windows] = masks(reader.read(reader.prepare(image, (32, 48)), (32, 48), [arm]))

    assert (whole != windows).mean() < 0.002


def test_bfloat16_labels_most_pixels_alike(backbone: OpenClip) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)

    plain = segmenter(backbone)
    [exact] = masks(plain.read(plain.prepare(image, (40, 64)), (40, 64), [SINGLE_PASS]))
    rounded = segmenter(backbone, precision="bfloat16")
    [labels] = masks(rounded.read(rounded.prepare(image, (40, 64)), (40, 64), [SINGLE_PASS]))
    [features] = rounded.features(image, (40, 64), [SINGLE_PASS])

    assert features.dtype == torch.bfloat16
    assert (labels == exact).mean() > 0.9


def test_features_that_are_not_finite_are_an_error(clip: Path) -> None:
    broken = OpenClip(BackboneSpec(name="openclip", path=str(clip)))
    with torch.no_grad():
        broken.visual.get_parameter("ln_post.weight")[0] = torch.nan
    image = np.zeros((40, 64, 3), np.uint8)

    ways_out = {"float32": "check the backbone's weights", "bfloat16": "use evaluate.precision"}
    for precision, way_out in ways_out.items():
        reader = segmenter(broken, precision=precision)
        [error] = reader.read(reader.prepare(image, (40, 64)), (40, 64), [SINGLE_PASS])

        assert isinstance(error, SparBenchError)
        assert f"finite, but are not in {precision}; {way_out}" in str(error)


def test_student_of_broken_weights_is_told_to_learn_slower(
    clip: Path, photographs: Path, store: Store
) -> None:
    plan = plan_of(
        settings(
            clip,
            photographs,
            student={"epochs": 1, "accumulate": 3, "learning_rate": 1e9},
            evaluate__methods=["student"],
        )
    )
    [row] = plan.trials[0].rows
    making, notes = scheduler(plan, store)

    making.make([row.evaluate])

    told = [text for note, _, text in notes.all if note == "failed"]
    assert told == [f"evaluate: features must be finite, but are not in float32; {DIVERGED}"]


def test_image_is_resized_by_the_nearest_four_pixels_to_whole_values_and_normalised() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)

    found = normalise(resize(to_tensor(image), (10, 16)), mean, std)

    # Centres of the pixels of the result, in pixels of the image; np.interp repeats the border.
    rows, columns = (np.arange(10) + 0.5) * 20 / 10 - 0.5, (np.arange(16) + 0.5) * 31 / 16 - 0.5
    for channel in range(3):
        wide = [np.interp(columns, np.arange(31), row) for row in image[:, :, channel]]
        exact = [np.interp(rows, np.arange(20), column) for column in np.transpose(wide)]
        values = 255 * (found[channel].double().numpy() * std[channel] + mean[channel])
        assert np.allclose(values, values.round(), atol=1e-3)
        assert np.abs(values - np.transpose(exact)).max() < 0.5 + 1e-3


def test_masks_without_a_labelled_pixel_are_told_by_their_data_sets_name(
    clip: Path, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_photographs(tmp_path / "dark")
    for path in (data / "val_masks").iterdir():
        Image.fromarray(np.full_like(read_mask(path), 255)).save(path)
    plan = plan_of(settings(clip, data, evaluate__methods=["pretrained"]))
    [row] = plan.trials[0].rows
    making, notes = scheduler(plan, store)

    making.make([row.evaluate])

    told = (
        "data set dark: its masks must label a pixel, but all 3 hold only 255, which is "
        "ignored; write class indices from 0 into them"
    )
    assert ("failed", "evaluate", told) in notes.all
    assert caplog.text == ""
    with pytest.raises(DataError, match="data set dark: its masks must label a pixel"):
        sb.evaluate(sb.load_backbone(clip), row.data.spec, short_side_px=40)
