"""Shared by tests of DINOv3: a small backbone with drawn weights, and its weights by name."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from spar_bench.backbones.dinov3txt import Backbone as DinoV3Txt
from tests.backbones.dinov3.tiny import TEXT_FILE, TRUNK_FILE, load, write


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small backbone: its data file, its keys, and its weights."""
    return write(tmp_path_factory.mktemp("dinov3txt"))


@pytest.fixture(scope="session")
def trunk(small: Path) -> dict[str, Tensor]:
    """The trunk's weights, by Meta's names."""
    state: dict[str, Tensor] = torch.load(small / "weights" / TRUNK_FILE, weights_only=True)
    return state


@pytest.fixture(scope="session")
def dinotxt(small: Path) -> dict[str, Tensor]:
    """The weights of vision head and text tower."""
    state: dict[str, Tensor] = torch.load(small / "weights" / TEXT_FILE, weights_only=True)
    return state


@pytest.fixture(scope="module")
def backbone(small: Path) -> DinoV3Txt:
    """The small backbone, loaded once for what leaves it as it is."""
    return load(small)


@pytest.fixture(scope="module")
def with_head(small: Path) -> DinoV3Txt:
    """The small backbone, read through its vision head."""
    return load(small, read_out="head_patch_tokens")
