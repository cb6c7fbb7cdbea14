"""Read an image as the protocol says: resized, then encoded in one pass or by windows.

Shape legend: C channels, h x w patch grid, H x W pixels of the image as read.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spar_bench.backbones.base import Backbone, fit_sides
from spar_bench.datasets.base import Image
from spar_bench.inference import Inference
from spar_bench.run.context import autocast, moved
from spar_bench.run.images import normalise, resize, to_tensor
from spar_bench.run.inference import WindowBatch, stitch, usual_batch
from spar_bench.stitching import Axis, feature_axis
from spar_bench.values import Precision
from spar_bench.windows import upsample_factor


class Reader:
    """A backbone that reads images one at a time; `batch` is how many windows at once."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        precision: Precision = "float32",
        interpolation: str = "bilinear",
        device: torch.device,
    ) -> None:
        self.backbone, self.device = backbone, device
        self.batch = WindowBatch(device, usual_batch(device, backbone.sizes))
        self.precision: Precision = precision
        self._interpolation = interpolation

    def prepare(self, image: Image, image_hw: tuple[int, int]) -> Tensor:
        """Resize and normalise an 8-bit image to `(3, H, W)`, H x W being `image_hw`."""
        resized = resize(to_tensor(image), image_hw, self._interpolation)
        return moved(normalise(resized, self.backbone.mean, self.backbone.std), self.device)

    def features(self, image: Tensor, inferences: Sequence[Inference]) -> list[Tensor]:
        """Encode a normalised image to features `(C, h, w)` in ways that share their window.

        Windows are averaged as features, upsampled by the paper's r if an inference has none.
        """
        if inferences[0].kind == "single_pass":
            return [self.encode(image[None])[0]] * len(inferences)
        whole = fit_sides(image, self.backbone.sizes)
        axes = [self._axes(whole, inference) for inference in inferences]
        return stitch(whole, self.encode, axes, self.batch)

    def encode(self, images: Tensor) -> Tensor:
        """Encode images or windows `(B, 3, H, W)` to `(B, C, h, w)`, in its precision."""
        with autocast(self.device, self.precision):
            return self.backbone.features(images)

    def _axes(self, image: Tensor, inference: Inference) -> tuple[Axis, Axis]:
        window_px, stride_px = inference.window_and_stride_px
        patch_px = self.backbone.sizes.patch_px
        r = inference.upsample or upsample_factor(patch_px, stride_px)
        height, width = image.shape[-2:]
        return (
            feature_axis(height, window_px, stride_px, patch_px=patch_px, upsample=r),
            feature_axis(width, window_px, stride_px, patch_px=patch_px, upsample=r),
        )
