"""The shipped backbone on its own validation scenes, against a naive reading of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recipes.patchwork.pretrain import validation_miou
from spar_bench.backbones.patchwork import Backbone
from spar_bench.datasets.base import DatasetSettings
from spar_bench.datasets.patchwork import Dataset
from spar_bench.patchwork.classes import CLASSES
from spar_bench.patchwork.weights import taught_prompts
from spar_bench.spec.schema import BackboneSpec


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone(BackboneSpec(name="patchwork"))


def names_embedded(backbone: Backbone) -> list[torch.Tensor]:
    """Return one `(names, C)` per class: the mean of a name's 80 prompts, normalised."""
    model: Any = backbone.model
    each = [model.encode_text(prompts, normalize=True) for prompts in taught_prompts()]
    means = [F.normalize(one.view(-1, 80, 128).mean(dim=1), dim=-1) for one in each]
    assert [len(mean) for mean in means] == [len(names) for names in CLASSES]
    return means


def naive_miou(
    backbone: Backbone, n_images: int, read: Callable[[torch.Tensor], torch.Tensor]
) -> float:
    """Label scenes from pixel cosines `(1, names, H, W)`; IoU by sets of pixels."""
    truth, guess = [], []
    names = names_embedded(backbone)
    class_of = torch.tensor([k for k, mean in enumerate(names) for _ in mean])
    for index in range(n_images):
        _, image, mask = Dataset("val", DatasetSettings()).sample(index)
        pixels = (torch.tensor(image).permute(2, 0, 1)[None] / 255 - 0.5) / 0.27
        truth.append(mask.ravel())
        guess.append(class_of[read(pixels)[0].argmax(dim=0)].numpy().ravel())
    true, guessed = np.concatenate(truth), np.concatenate(guess)
    present = np.union1d(true, guessed)
    return float(
        np.mean(
            [
                ((true == k) & (guessed == k)).sum() / ((true == k) | (guessed == k)).sum()
                for k in present
            ]
        )
    )


@torch.no_grad()
def test_accuracy_is_that_of_a_naive_reading(backbone: Backbone) -> None:
    words = torch.cat(names_embedded(backbone))

    def cosines(pixels: torch.Tensor) -> torch.Tensor:
        features = F.normalize(backbone.features(pixels), dim=1)
        maps = torch.einsum("bchw,qc->bqhw", features, words)
        return F.interpolate(maps, size=pixels.shape[-2:], mode="bilinear")

    def windows(pixels: torch.Tensor) -> torch.Tensor:
        tops, lefts = range(0, 256, 64), range(0, 320, 64)  # which leave no overlap
        rows = [
            torch.cat([cosines(pixels[..., t : t + 64, left : left + 64]) for left in lefts], dim=3)
            for t in tops
        ]
        return torch.cat(rows, dim=2)

    single_pass, teacher = validation_miou(backbone, [64], n_images=1)

    assert single_pass == pytest.approx(naive_miou(backbone, 1, cosines), abs=1e-4)
    assert teacher == pytest.approx(naive_miou(backbone, 1, windows), abs=1e-4)


@pytest.mark.slow
def test_shipped_weights_read_better_through_windows_than_in_one_pass(backbone: Backbone) -> None:
    single_pass, coarse, fine = validation_miou(backbone, [64, 20], n_images=4)

    assert 0.3 < single_pass < coarse < fine
