"""The plug-ins in CONTRIBUTING: complete examples that satisfy their contracts."""

import re
from pathlib import Path
from typing import Any

import pytest

from spar_bench.datasets.base import DatasetSettings
from spar_bench.losses.base import Loss
from spar_bench.testing import DatasetContract, LossContract, MakeDataset

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(of: str) -> Any:
    """Run the one example of a plug-in that defines a name; return what it defines."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    [code] = [block for block in blocks if re.search(rf"^(def|class) {of}\b", block, re.MULTILINE)]
    names = dict[str, Any]()
    exec(code, names)
    assert names["VERSION"] == 1
    return names[of]


class TestLoss(LossContract):
    """The loss."""

    @pytest.fixture
    def loss(self) -> Loss:
        found: Loss = example("loss")
        return found


class TestDataset(DatasetContract):
    """The data set."""

    @pytest.fixture
    def make(self) -> MakeDataset:
        made = example("Dataset")
        return lambda split, count: made(split, DatasetSettings(count=count))
