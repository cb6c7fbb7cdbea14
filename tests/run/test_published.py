"""Whole evaluations of the published data sets on miniature trees, mIoU counted pixel by pixel."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spar_bench.stages.evaluate import read_preview
from spar_bench.store import Store
from tests.datasets.trees import CITYSCAPES_TRAIN_IDS, LABELLED, make
from tests.run.tiny import make_stage, of_kind, plan_of, scheduler, settings

N_IMAGES = 3


def as_stored(value: int) -> int:
    return value


def zero_ignored(value: int) -> int:
    return 255 if value in (0, 255) else value - 1


MASKS: dict[str, tuple[str, Callable[[int], int]]] = {
    "voc21": ("SegmentationClass/2008_*.png", as_stored),
    "voc20": ("SegmentationClass/2008_*.png", zero_ignored),
    "context60": ("SegmentationClassContext/2009_*.png", as_stored),
    "context59": ("SegmentationClassContext/2009_*.png", zero_ignored),
    "ade20k": ("annotations/validation/*.png", zero_ignored),
    "cityscapes": ("gtFine/val/*/*_labelIds.png", CITYSCAPES_TRAIN_IDS.__getitem__),
}
"""For each: its validation masks in order, and what a stored value means, by hand."""


def miou_by_hand(pairs: Counter[tuple[int, int]]) -> float:
    """Return the mean over the classes that are true or predicted somewhere.

    `pairs` counts the pixels of each (true class, predicted class).
    """
    ious = []
    for label in {label for pair in pairs for label in pair}:
        union = sum(count for pair, count in pairs.items() if label in pair)
        ious.append(pairs[label, label] / union)
    return sum(ious) / len(ious)


@pytest.mark.parametrize("name", LABELLED)
def test_miou_is_the_one_counted_by_hand(
    clip: Path, photographs: Path, store: Store, tmp_path: Path, name: str
) -> None:
    root = make(name, tmp_path, n=N_IMAGES)
    data = [{"name": name, "path": str(root), "templates": ["a {}."]}]
    plan = plan_of(
        settings(clip, photographs, evaluate__datasets=data, evaluate__methods=["pretrained"])
    )
    [stage] = of_kind(plan, "evaluate")

    finished = make_stage(plan, store, stage)

    pattern, label = MASKS[name]
    masks, pairs = sorted(root.glob(pattern)), Counter[tuple[int, int]]()
    for path, predicted in zip(masks, read_preview(finished).predictions, strict=True):
        stored = np.asarray(Image.open(path))
        assert predicted.shape == stored.shape
        truth = [label(value) for value in stored.ravel().tolist()]
        seen = zip(truth, predicted.ravel().tolist(), strict=True)
        pairs.update(pair for pair in seen if pair[0] != 255)
    assert finished.summary["n_images"] == len(masks) == N_IMAGES
    assert finished.summary["miou"] == pytest.approx(miou_by_hand(pairs), abs=1e-12)
    assert finished.summary["miou"] > 0
    assert [row.rows[0].data.display_name for row in plan.trials] == [name]


def test_distillation_images_come_from_a_published_tree(
    clip: Path, photographs: Path, store: Store, tmp_path: Path
) -> None:
    root = make("sa1b", tmp_path)
    plan = plan_of(
        settings(
            clip,
            photographs,
            images__source={"name": "sa1b", "path": str(root)},
            student__epochs=1,
            evaluate__methods=["student"],
        )
    )
    [stage] = of_kind(plan, "student")

    scheduler(plan, store)[0].make(list(plan.stages))

    assert store.find(stage) is not None
