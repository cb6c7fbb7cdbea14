"""Class names to queries: each synonym's prompts, embedded, averaged and normalised.

Shape legend: Q queries, K classes, C channels, H x W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spar_bench.backbones.base import Backbone


@dataclass(frozen=True)
class Classifier:
    """Text queries, and which class each is a name of.

    `queries` is `(Q, C)`, normalised; `class_of` `(Q,)` gives the class index of each. Class 0 is
    the background; a threshold of 0 is none.
    """

    queries: Tensor
    class_of: Tensor
    n_classes: int
    logit_scale: float
    background_threshold: float
    area_threshold: float = 0.0

    def cosines(self, features: Tensor) -> Tensor:
        """Return cosines `(B, Q, h, w)` of features `(B, C, h, w)` with each query, in float32."""
        normalised = F.normalize(features.float(), dim=1)
        return torch.einsum("bchw,qc->bqhw", normalised, self.queries)

    def labels(self, cosines: Tensor) -> Tensor:
        """Return the class of each pixel `(H, W)` from cosines `(Q, H, W)`.

        Scaled, softmax over queries, a class as probable as the best of its queries: so the best
        query's class. Of a foreground class that is too rare no query counts any more, though each
        keeps its part of the sum; and where the best probability that is left is below the
        background threshold, the class is 0.
        """
        best, query = cosines.max(dim=0)
        labels, left = self.class_of[query], best
        if self.area_threshold > 0:
            rare = self._is_rare(labels)[self.class_of]
            left, query = cosines.masked_fill(rare[:, None, None], -torch.inf).max(dim=0)
            labels = self.class_of[query]
        if self.background_threshold > 0:
            total = ((cosines - best) * self.logit_scale).exp().sum(dim=0)
            probability = ((left - best) * self.logit_scale).exp() / total
            labels = labels.masked_fill(probability < self.background_threshold, 0)
        return labels

    def _is_rare(self, labels: Tensor) -> Tensor:
        """Tell of each class, `(K,)`, whether it holds too small a share of the foreground."""
        n_pixels = labels.flatten().bincount(minlength=self.n_classes).double()
        n_pixels[0] = 0
        # Divided, not multiplied: 3 of 30 pixels are then 0.1 to the last bit. Without any
        # foreground the share is NaN, and no class is rare: there is none to take away.
        rare = n_pixels / n_pixels.sum() <= self.area_threshold
        rare[0] = False
        return rare


def classifier(
    backbone: Backbone,
    classes: list[list[str]],
    templates: list[str] | Literal["openclip_80"],
    *,
    logit_scale: float,
    background_threshold: float,
    area_threshold: float = 0.0,
    check: Callable[[], None] = lambda: None,
) -> Classifier:
    """Embed every name of every class in every template; `check` is called between names.

    Prompts are normalised, averaged and normalised again. Source: CLIP's zero-shot classifier.
    """
    forms = _openclip_templates() if templates == "openclip_80" else templates
    queries, class_of = [], []
    for index, names in enumerate(classes):
        for name in names:
            check()
            embedded = backbone.encode_text([form.replace("{}", name) for form in forms])
            queries.append(F.normalize(embedded.float().mean(dim=0), dim=0))
            class_of.append(index)
    stacked = torch.stack(queries)
    return Classifier(
        queries=stacked,
        class_of=torch.tensor(class_of, device=stacked.device),
        n_classes=len(classes),
        logit_scale=logit_scale,
        background_threshold=background_threshold,
        area_threshold=area_threshold,
    )


def classifier_of(
    backbone: Backbone,
    classes: list[list[str]],
    protocol: dict[str, Any],
    *,
    check: Callable[[], None] = lambda: None,
) -> Classifier:
    """Embed every name of every class as a resolved protocol has it; `check` as `classifier`."""
    return classifier(
        backbone,
        classes,
        protocol["templates"],
        logit_scale=protocol["logit_scale"],
        background_threshold=protocol["background_threshold"],
        area_threshold=protocol["area_threshold"],
        check=check,
    )


def _openclip_templates() -> list[str]:
    import open_clip

    return [str(template("{}")) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
