"""Shared by tests of backbones: a small open_clip model, and data files of its sizes."""

import json
from pathlib import Path

import open_clip
import pytest

from tests.components.data_files import TINY
from tests.run.conftest import clip
from tests.run.tiny import MODEL

__all__ = ["clip"]


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A data file of the small model's sizes, as a user writes one."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture
def named(tmp_path: Path) -> str:
    """A data file that names the small model, which open_clip is made to know."""
    (tmp_path / "SmallViT.json").write_text(json.dumps(MODEL))
    open_clip.add_model_config(tmp_path / "SmallViT.json")
    (tmp_path / "small.yaml").write_text(TINY + "model: SmallViT\n")
    return str(tmp_path / "small.yaml")
