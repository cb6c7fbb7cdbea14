"""Files of tensors as trainers write them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from spar_bench.components.tensors import read_shapes, read_tensors

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "scale": torch.tensor(2.0)}


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model": WEIGHTS, "best_loss": torch.tensor(0.5)},
    ],
)
def test_weights_are_found_whatever_lies_beside_them(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")

    found = read_tensors(tmp_path / "w.pt")

    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items())
    assert read_shapes(tmp_path / "w.pt") == {"a.weight": (2, 3), "scale": ()}
