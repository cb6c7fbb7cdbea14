"""How well the backbone reads the validation scenes, in one pass and through a fine window."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench.accuracy import Counts, miou
from spar_bench.backbones.base import Backbone
from spar_bench.datasets.base import DatasetSettings
from spar_bench.datasets.patchwork import Dataset
from spar_bench.run.images import normalise, to_tensor
from spar_bench.run.inference import stitch
from spar_bench.run.text import Classifier, classifier
from spar_bench.windows import pixel_axis

WINDOW_PX = 64


def validation_miou(
    backbone: Backbone, stride_px: Sequence[int], *, n_images: int | None = None
) -> list[float]:
    """Return mIoU as fractions: of a single pass, then of the teacher at each stride.

    Windows of 64 px, their cosines averaged at pixels.
    """
    dataset = Dataset("val", DatasetSettings(count=n_images))
    words = classifier(
        backbone, dataset.classes, "openclip_80", logit_scale=1.0, background_threshold=0.0
    )
    n_classes = len(dataset.classes)
    confusion = np.zeros((1 + len(stride_px), n_classes, n_classes), np.int64)
    for index in range(len(dataset)):
        _, image, mask = dataset.sample(index)
        pixels = normalise(to_tensor(image), backbone.mean, backbone.std)
        with torch.inference_mode():
            labels = torch.stack(_read(backbone, words, pixels, stride_px)).numpy()
        for arm, predicted in enumerate(labels):
            pairs = mask.astype(np.int64) * n_classes + predicted
            confusion[arm] += np.bincount(pairs.ravel(), minlength=n_classes**2).reshape(
                n_classes, n_classes
            )
    return [
        miou(Counts(arm.diagonal()[None], arm.sum(axis=0)[None], arm.sum(axis=1)[None]))
        for arm in confusion
    ]


def _read(
    backbone: Backbone, words: Classifier, image: Tensor, stride_px: Sequence[int]
) -> list[Tensor]:
    """Return the labels `(H, W)` that each way of reading an image `(3, H, W)` gives."""
    height, width = image.shape[-2:]
    whole = words.cosines(backbone.features(image[None]))
    maps = [F.interpolate(whole, size=(height, width), mode="bilinear")[0]]
    patch_px = backbone.sizes.patch_px
    arms = [
        (
            pixel_axis(height, WINDOW_PX, stride, patch_px=patch_px, out_px=height),
            pixel_axis(width, WINDOW_PX, stride, patch_px=patch_px, out_px=width),
        )
        for stride in stride_px
    ]
    maps += stitch(image, lambda windows: words.cosines(backbone.features(windows)), arms)
    return [words.labels(cosines) for cosines in maps]
