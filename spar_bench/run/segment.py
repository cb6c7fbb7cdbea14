"""Label every pixel of an image: features in one pass or by windows, held against text queries.

Shape legend: C channels, Q queries, H x W pixels of the image as read, T x U of the truth.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench import registry
from spar_bench.backbones.base import Backbone
from spar_bench.datasets.base import Image, Mask
from spar_bench.errors import SparBenchError
from spar_bench.plan.cost import Inference
from spar_bench.plan.stages import resized_hw
from spar_bench.refiners.base import Refiner
from spar_bench.run.context import autocast
from spar_bench.run.images import normalise, resize, to_tensor
from spar_bench.run.inference import stitch
from spar_bench.run.text import Classifier
from spar_bench.spec.schema import Precision
from spar_bench.windows import Axis, feature_axis, pixel_axis

UNFIT = "look at the backbone's weights"
DIVERGED = "training broke the student's weights: lower student.learning_rate"
"""What to do about weights that give no finite features: the pretrained ones, a student's."""


class Segmenter:
    """A backbone, its text queries and a refiner, reading images one at a time.

    `way_out` is what to do where features are not finite in float32.
    """

    def __init__(
        self,
        backbone: Backbone,
        classifier: Classifier,
        *,
        refiner: str = "none",
        precision: Precision = "float32",
        way_out: str = UNFIT,
        device: torch.device,
    ) -> None:
        self.backbone, self.classifier, self.device = backbone, classifier, device
        self._refine: Refiner = registry.load("refiners", refiner)()
        self._precision: Precision = precision
        self._way_out = way_out

    def read(
        self, image: Image, short_side_px: int, truth_hw: tuple[int, int], arms: Sequence[Inference]
    ) -> list[tuple[Mask, Tensor | None]]:
        """Label an 8-bit image `(H, W, 3)` with arms that share window and average.

        The image is resized; its labels are of the truth's size. Returns labels `(T, U)` of each
        arm, and the features `(C, h, w)` behind them: None where windows voted on logits.

        Raises:
            SparBenchError: features are not finite, so that labels would mean nothing.
        """
        image_hw = resized_hw((image.shape[0], image.shape[1]), short_side_px)
        resized = resize(to_tensor(image), image_hw).to(self.device)
        normalised = normalise(resized, self.backbone.mean, self.backbone.std)
        with torch.inference_mode():
            found = []
            for cosines, features in self.cosines(normalised, arms):
                self._require_finite(cosines)
                labels = self.labels(cosines, normalised, truth_hw)
                found.append((labels.to(torch.uint8).cpu().numpy(), features))
            return found

    def cosines(
        self, image: Tensor, arms: Sequence[Inference]
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Read a normalised image `(3, H, W)` with arms that share window and average.

        Returns, for each arm, cosines with the queries, and the features `(C, h, w)` behind them.
        Cosines are `(Q, h, w)` on the patch grid; where windows are averaged as logits they are
        `(Q, H, W)`, and there are no features: None.
        """
        if arms[0].kind == "single_pass":
            features = self._encode(image[None])
            return [(self.classifier.cosines(features)[0], features[0])] * len(arms)
        axes = [self._axes(image, arm) for arm in arms]
        if arms[0].average == "logits":
            return [(cosines, None) for cosines in stitch(image, self._window_cosines, axes)]
        maps = stitch(image, self._encode, axes)
        return [(self.classifier.cosines(features[None])[0], features) for features in maps]

    def labels(self, cosines: Tensor, image: Tensor, truth_hw: tuple[int, int]) -> Tensor:
        """Return the class of each of the truth's pixels, `(T, U)`, from cosines of any size."""
        refined = self._refine(cosines, image)
        if tuple(refined.shape[-2:]) != truth_hw:
            refined = F.interpolate(refined[None], size=truth_hw, mode="bilinear")[0]
        return self.classifier.labels(refined)

    def _require_finite(self, cosines: Tensor) -> None:
        if not cosines.isfinite().all():
            is_exact = self._precision == "float32"
            raise SparBenchError(
                f"evaluate: features must be finite, but are not in {self._precision}; "
                + (self._way_out if is_exact else "use evaluate.precision: float32")
            )

    def _encode(self, images: Tensor) -> Tensor:
        with autocast(self.device, self._precision):
            return self.backbone.features(images)

    def _window_cosines(self, windows: Tensor) -> Tensor:
        return self.classifier.cosines(self._encode(windows))

    def _axes(self, image: Tensor, arm: Inference) -> tuple[Axis, Axis]:
        assert arm.window_px is not None, "a window slides"
        assert arm.stride_px is not None, "a window slides"
        height, width = image.shape[-2:]
        patch_px = self.backbone.sizes.patch_px
        if arm.average == "logits":
            return (
                pixel_axis(height, arm.window_px, arm.stride_px, patch_px=patch_px, out_px=height),
                pixel_axis(width, arm.window_px, arm.stride_px, patch_px=patch_px, out_px=width),
            )
        assert arm.upsample is not None, "features are stitched on cells of patch / r"
        return (
            feature_axis(
                height, arm.window_px, arm.stride_px, patch_px=patch_px, upsample=arm.upsample
            ),
            feature_axis(
                width, arm.window_px, arm.stride_px, patch_px=patch_px, upsample=arm.upsample
            ),
        )
