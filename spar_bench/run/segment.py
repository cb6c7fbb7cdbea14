"""Label every pixel: features in one pass or by windows, scored by a classifier.

Shape legend: C channels, Q scores a pixel, H x W pixels of the image as read, T x U of the truth.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench import registry
from spar_bench.backbones.base import Backbone, fit_sides
from spar_bench.datasets.base import Image, Mask
from spar_bench.errors import SparBenchError
from spar_bench.inference import Inference
from spar_bench.plan.cost import pass_hw
from spar_bench.refiners.base import Guidance, RefinesFeatures, RefinesScores
from spar_bench.run.classifier import Classifier
from spar_bench.run.context import build_refiner
from spar_bench.run.inference import stitch
from spar_bench.run.products import wide_products
from spar_bench.run.reader import Reader
from spar_bench.spec.plugins import PluginSpec
from spar_bench.stitching import Axis, pixel_axis
from spar_bench.values import Precision

NO_REFINER = PluginSpec(name="none")
UNFIT = "check the backbone's weights"
DIVERGED = "training broke the student's weights: lower student.learning_rate"
"""What to do if weights give features that are not finite: pretrained ones, a student's."""


class Scores(NamedTuple):
    """What a classifier says of features, `(Q, h, w)`, and the features `(C, h, w)` themselves.

    `encoded` are those that were refined to them, if any were. Where windows are averaged as
    logits, the grid is that of the image's pixels, and there are no features.
    """

    values: Tensor
    features: Tensor | None = None
    encoded: Tensor | None = None


class Segmenter:
    """A backbone, a classifier of its features and a refiner, reading images one at a time.

    `way_out` is the advice if features are not finite in float32; `batch` is how many windows are
    encoded at once; `built` is the refiner, if it is built already.
    """

    def __init__(
        self,
        backbone: Backbone,
        classifier: Classifier,
        *,
        refiner: PluginSpec = NO_REFINER,
        built: object | None = None,
        precision: Precision = "float32",
        interpolation: str = "bilinear",
        way_out: str = UNFIT,
        device: torch.device,
    ) -> None:
        self.backbone, self.classifier = backbone, classifier
        self.refiner = build_refiner(refiner, device) if built is None else built
        self._refiner_name = registry.display_name(refiner.name)
        self._reader = Reader(
            backbone, precision=precision, interpolation=interpolation, device=device
        )
        self.batch = self._reader.batch
        self._way_out = way_out

    def prepare(self, image: Image, image_hw: tuple[int, int]) -> Tensor:
        """Resize an 8-bit image `(H, W, 3)` to `image_hw` and normalise it, `(3, H, W)`."""
        return self._reader.prepare(image, image_hw)

    def read(
        self, image: Tensor, truth_hw: tuple[int, int], inferences: Sequence[Inference]
    ) -> list[Mask | SparBenchError]:
        """Label an image that `prepare` returned in ways that share window and average.

        The labels `(T, U)` of each have the truth's size. One whose features or scores are not
        finite has the error instead: labels would be meaningless.
        """
        with torch.inference_mode(), wide_products(image.device):
            guidance = self.guidance(image)
            return [
                self._mask(scores, guidance, truth_hw)
                for scores in self.scores(image, inferences, guidance, truth_hw)
            ]

    def _mask(
        self, scores: Scores, guidance: Guidance, truth_hw: tuple[int, int]
    ) -> Mask | SparBenchError:
        if not scores.values.isfinite().all():
            # It is the refiner of features if what it was given is finite.
            encoded = scores.encoded
            is_read = encoded is not None and bool(encoded.isfinite().all())
            return self._not_refined() if is_read else self._not_finite()
        refined = self._refined(scores, guidance, truth_hw)
        if not refined.isfinite().all():
            return self._not_refined()
        mask: Mask = self._labels(refined, truth_hw).to(torch.uint8).cpu().numpy()
        return mask

    def features(
        self, image: Image, image_hw: tuple[int, int], inferences: Sequence[Inference]
    ) -> list[Tensor]:
        """Read an 8-bit image to features `(C, h, w)` in ways that share their window.

        Where logits are averaged, features are averaged too, upsampled by the paper's r.
        """
        with torch.inference_mode(), wide_products(self._reader.device):
            return self._reader.features(self._reader.prepare(image, image_hw), inferences)

    def guidance(self, image: Tensor) -> Guidance:
        """Return the pixels of a normalised image `(3, H, W)` as the backbone sees them."""
        backbone = self.backbone
        return Guidance(fit_sides(image, backbone.sizes), backbone.mean, backbone.std)

    def scores(
        self,
        image: Tensor,
        inferences: Sequence[Inference],
        guidance: Guidance,
        out_hw: tuple[int, int],
    ) -> Iterator[Scores]:
        """Yield the scores for each, of features that are refined already.

        The image is normalised, `(3, H, W)`; all share window and average; labels are of the
        size `out_hw`.

        Raises:
            SparBenchError: the refiner needs features, but windows are averaged as logits.
        """
        if inferences[0].average == "logits":
            if isinstance(self.refiner, RefinesFeatures):
                raise SparBenchError(
                    "evaluate.refiner: must refine scores where windows are averaged as logits, "
                    "but it refines features; set evaluate.average: features"
                )
            axes = [self._pixel_axes(image, inference) for inference in inferences]
            maps = stitch(image, self._window_scores, axes, self.batch)
            yield from map(Scores, maps)
            return
        for features in self._reader.features(image, inferences):
            encoded = None
            if isinstance(self.refiner, RefinesFeatures):
                encoded = features
                features = self.refiner.features(features, guidance, out_hw)
            yield Scores(self.classifier.scores(features[None])[0], features, encoded)

    def labels(self, scores: Scores, guidance: Guidance, out_hw: tuple[int, int]) -> Tensor:
        """Return the class of each pixel, `(T, U)`, T x U being `out_hw`, from refined scores."""
        return self._labels(self._refined(scores, guidance, out_hw), out_hw)

    def _refined(self, scores: Scores, guidance: Guidance, out_hw: tuple[int, int]) -> Tensor:
        if not isinstance(self.refiner, RefinesScores):
            return scores.values
        return self.refiner.scores(scores.values, scores.features, guidance, out_hw)

    def _labels(self, values: Tensor, out_hw: tuple[int, int]) -> Tensor:
        if tuple(values.shape[-2:]) != out_hw:
            values = F.interpolate(values[None], size=out_hw, mode="bilinear")[0]
        return self.classifier.labels(values)

    def _not_refined(self) -> SparBenchError:
        return SparBenchError(
            f"evaluate.refiner: {self._refiner_name} must give finite values for finite ones, but "
            "does not; check its weights and settings, or use another refiner"
        )

    def _not_finite(self) -> SparBenchError:
        precision = self._reader.precision
        is_exact = precision == "float32"
        return SparBenchError(
            f"evaluate: features must be finite, but are not in {precision}; "
            + (self._way_out if is_exact else "use evaluate.precision: float32")
        )

    def _window_scores(self, windows: Tensor) -> Tensor:
        return self.classifier.scores(self._reader.encode(windows))

    def _pixel_axes(self, image: Tensor, inference: Inference) -> tuple[Axis, Axis]:
        window_px, stride_px = inference.window_and_stride_px
        sizes, image_hw = self.backbone.sizes, (image.shape[-2], image.shape[-1])
        grid_hw = sizes.grid_hw(pass_hw(sizes, inference, image_hw))
        rows, columns = (
            pixel_axis(
                length,
                window_px,
                stride_px,
                patch_px=sizes.patch_px,
                out_px=length,
                n_patches=n_patches,
            )
            for length, n_patches in zip(image_hw, grid_hw, strict=True)
        )
        return rows, columns
