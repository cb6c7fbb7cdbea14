"""The paper's protocol from pixels to mIoU, against numpy alone: a stub of known features."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from ruamel.yaml import YAML
from torch import Tensor

import spar_bench as sb
from spar_bench import registry
from spar_bench.datasets._images import read_image
from spar_bench.spec.schema import DatasetSpec
from tests.datasets import trees
from tests.test_testing import ToyBackbone

PATCH = 16
TEMPLATES = ["a {}.", "the {} there"]
Floats = NDArray[np.float64]


def vector(prompt: str) -> Floats:
    """Return the embedding of a prompt, `(6,)`, of length 1."""
    drawn = np.random.default_rng(list(prompt.encode())).standard_normal(6)
    return drawn / math.sqrt((drawn**2).sum())


class Stub(ToyBackbone):
    """Features are the means of each patch's channels and of their squares; text is drawn."""

    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)

    def __init__(self, read_out: str) -> None:
        super().__init__()
        self.sizes = replace(self.sizes, patch_px=PATCH, image_px=32, read_out=read_out)

    def features(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(torch.cat([images, images**2 - 1], dim=1), PATCH)

    def encode_text(self, prompts: list[str]) -> Tensor:
        return torch.from_numpy(np.stack([vector(prompt) for prompt in prompts])).float()


def sampled(length: int, out: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the two samples and the weight of the second for bilinear resampling of an axis."""
    at = np.clip((np.arange(out) + 0.5) * length / out - 0.5, 0, None)
    low = np.minimum(np.floor(at).astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1), at - low


def bilinear(maps: Floats, hw: tuple[int, int]) -> Floats:
    """Resample `(C, H, W)` bilinearly: pixel centres at halves, no antialiasing."""
    top, bottom, down = sampled(maps.shape[1], hw[0])
    rows = maps[:, top] * (1 - down)[:, None] + maps[:, bottom] * down[:, None]
    left, right, across = sampled(maps.shape[2], hw[1])
    return rows[:, :, left] * (1 - across) + rows[:, :, right] * across


def features_by_hand(image: NDArray[np.uint8], hw: tuple[int, int]) -> Floats:
    resized = bilinear(image.transpose(2, 0, 1).astype(float), hw)
    pixels = np.floor(resized + 0.5 + 1e-9) / 255  # 8 bits again, halves up
    pixels = (pixels - np.reshape(Stub.mean, (3, 1, 1))) / np.reshape(Stub.std, (3, 1, 1))
    rows, columns = hw[0] // PATCH, hw[1] // PATCH  # what fills no patch is dropped
    both = np.concatenate([pixels, pixels**2 - 1])[:, : rows * PATCH, : columns * PATCH]
    means: Floats = both.reshape(6, rows, PATCH, columns, PATCH).mean(axis=(2, 4))
    return means


def labels_by_hand(
    cosines: Floats, class_of: list[int], scale: float, background: float, area: float
) -> NDArray[np.int64]:
    """Label pixels from cosines `(Q, T, U)` with the rules written out one after another."""
    weights = np.exp(scale * cosines)
    queries = weights / weights.sum(axis=0)
    classes = np.stack(
        [queries[[q for q, k in enumerate(class_of) if k == c]].max(axis=0)
         for c in range(max(class_of) + 1)]
    )  # fmt: skip
    best = classes.argmax(axis=0)
    for c in range(1, len(classes)):
        if area and (best == c).sum() <= area * (best > 0).sum():
            classes[c] = 0
    labels: NDArray[np.int64] = classes.argmax(axis=0)
    labels[classes.max(axis=0) < background] = 0
    return labels


def miou_by_hand(truths: list[NDArray[np.uint8]], labels: list[NDArray[np.int64]]) -> float:
    """Return the mean over classes that are in truth or prediction; 255 is ignored."""
    truth = np.concatenate([one.ravel() for one in truths])
    found = np.concatenate([one.ravel() for one in labels])[truth != 255]
    truth = truth[truth != 255]
    ious = [
        ((truth == c) & (found == c)).sum() / either
        for c in range(256)
        if (either := ((truth == c) | (found == c)).sum())
    ]
    return float(np.mean(ious))


def files(root: Path) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Return image and stored labels of each validation image of a VOC tree."""
    names = (root / "ImageSets/Segmentation/val.txt").read_text().split()
    return [
        (read_image(root / f"JPEGImages/{name}.jpg"),
         np.asarray(Image.open(root / f"SegmentationClass/{name}.png")))
        for name in names
    ]  # fmt: skip


def test_spec_of_the_protocols_page_is_one(tmp_path: Path) -> None:
    page = Path(sb.__file__).parent.parent / "docs" / "protocol.md"
    shown = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    [text] = [one for one in shown if "evaluate.precision" in one]
    (tmp_path / "precision.yaml").write_text(text)

    found = sb.read_spec(tmp_path / "precision.yaml")

    assert [point.swept for point in found.points] == [
        {"evaluate.precision": one} for one in ("float32", "bfloat16", "float16")
    ]


@pytest.mark.parametrize(
    ("read_out", "background", "area"),
    [("maskclip", 0.1, 0.1), ("attention_pool_values", 0.0, 0.0)],
)
@pytest.mark.parametrize(
    ("hw", "first_hw"),
    [
        ((24, 36), (672, 1008)),
        ((24, 100), (492, 2048)),  # 24 * 20.48 = 491.52: the long side is capped
    ],
)
def test_miou_of_voc21_is_that_of_numpy_from_pixels_on(
    tmp_path: Path,
    hw: tuple[int, int],
    first_hw: tuple[int, int],
    read_out: str,
    background: float,
    area: float,
) -> None:
    root = trees.make("voc21", tmp_path, n=3, hw=hw)
    stated = YAML(typ="safe").load(registry.source("datasets", "voc21").with_name("voc21.yaml"))
    queries, class_of = [], []
    for label, names in enumerate(stated["classes"]):
        for name in names:
            mean = np.mean([vector(form.replace("{}", name)) for form in TEMPLATES], axis=0)
            queries.append(mean / np.linalg.norm(mean))
            class_of.append(label)
    assert (len(queries), max(class_of)) == (26 + 18 + 7 + 5, 20)

    spec = DatasetSpec(name="voc21", path=str(root), templates=TEMPLATES)
    found = sb.evaluate(Stub(read_out), spec)

    truths, labels, plain, sizes = [], [], [], []
    for image, truth in files(root):
        height, width = image.shape[:2]
        scale = min(2048 / max(height, width), 672 / min(height, width))
        sizes.append((int(height * scale + 0.5), int(width * scale + 0.5)))
        features = features_by_hand(image, sizes[-1])
        features /= np.sqrt((features**2).sum(axis=0))
        cosines = bilinear(np.einsum("qc,chw->qhw", queries, features), (height, width))
        truths.append(truth)
        labels.append(labels_by_hand(cosines, class_of, 65, background, area))
        plain.append(labels_by_hand(cosines, class_of, 65, 0, 0))
    assert sizes[0] == first_hw
    assert found.miou == pytest.approx(miou_by_hand(truths, labels), abs=1e-12)
    assert found.counts.predicted.tolist() == [
        [int((one[truth != 255] == c).sum()) for c in range(21)]
        for one, truth in zip(labels, truths, strict=True)
    ]
    moved = np.mean(np.concatenate([(a != b).ravel() for a, b in zip(labels, plain, strict=True)]))
    assert (moved > 0.05) == (area > 0)
