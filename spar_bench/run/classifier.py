"""From the scores of a pixel to its class: what classifiers of class names and probes share.

Shape legend: Q scores a pixel, K classes, C channels, H x W pixels.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Classifier(ABC):
    """Scores of features, and the class that each score is for.

    `class_of` `(Q,)` gives the class index of each. Class 0 is the background; a threshold of 0 is
    none.
    """

    class_of: Tensor
    n_classes: int
    logit_scale: float
    background_threshold: float
    area_threshold: float = 0.0

    @abstractmethod
    def scores(self, features: Tensor) -> Tensor:
        """Return scores `(B, Q, h, w)` of features `(B, C, h, w)`, in float32."""

    def labels(self, scores: Tensor) -> Tensor:
        """Return the class of each pixel `(H, W)` from scores `(Q, H, W)`.

        Scores are scaled, with a softmax over all; a class is as probable as its best score, so the
        best score's class wins. Scores of a foreground class that is too rare no longer count,
        though they stay in the softmax's sum; and where the best remaining probability is below the
        background threshold, the class is 0.
        """
        best, place = scores.max(dim=0)
        labels, left = self.class_of[place], best
        if self.area_threshold > 0:
            rare = self._is_rare(labels)[self.class_of]
            left, place = scores.masked_fill(rare[:, None, None], -torch.inf).max(dim=0)
            labels = self.class_of[place]
        if self.background_threshold > 0:
            total = ((scores - best) * self.logit_scale).exp().sum(dim=0)
            probability = ((left - best) * self.logit_scale).exp() / total
            labels = labels.masked_fill(probability < self.background_threshold, 0)
        return labels

    def _is_rare(self, labels: Tensor) -> Tensor:
        """Tell for each class, `(K,)`, whether its share of the foreground is too small."""
        n_pixels = labels.flatten().bincount(minlength=self.n_classes).double()
        n_pixels[0] = 0
        # Divided, not multiplied: 3 of 30 pixels are then 0.1 to the last bit. Without any
        # foreground the share is NaN, and no class is rare: there is none to drop.
        rare = n_pixels / n_pixels.sum() <= self.area_threshold
        rare[0] = False
        return rare
