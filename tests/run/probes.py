"""Small linear probes: photographs with labelled training images, and the plans of them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spar_bench.plan.trials import Plan
from tests.run.tiny import CLASSES, plan_of, settings, write_photographs

RECIPE: dict[str, Any] = {"name": "linear", "epochs": 3, "batch": 2, "learning_rate": 0.01}


def write_labelled(folder: Path, *, n_train: int = 3) -> Path:
    """Write a `folder` data set of noise whose training images are labelled too."""
    write_photographs(folder)
    generator = np.random.default_rng(7)
    (folder / "train_masks").mkdir()
    for index in range(n_train):
        mask = generator.integers(0, len(CLASSES), (40 + 6 * index, 70), dtype=np.uint8)
        mask[:, :9] = 255
        Image.fromarray(mask).save(folder / "train_masks" / f"{index}.png")
    return folder


def probes_of(clip: Path, photographs: Path, **changes: Any) -> Plan:
    """Return a plan whose evaluations are by linear probes, of the pretrained model unless said."""
    recipe = RECIPE | changes.pop("recipe", {})
    stated = {"evaluate__classifier": recipe, "evaluate__methods": ["pretrained"], **changes}
    return plan_of(settings(clip, photographs, **stated))
