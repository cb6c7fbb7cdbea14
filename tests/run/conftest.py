"""Shared by tests of running: a small model and a few photographs, written once."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import open_clip
import pytest

from spar_bench.store import Store
from tests.run.tiny import write_clip, write_photographs


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small open_clip model."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip")


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of labelled noise."""
    return write_photographs(tmp_path_factory.mktemp("photographs") / "noise")


@pytest.fixture(autouse=True, scope="module")
def _one_tokenizer() -> Iterator[None]:
    """Build open_clip's tokenizer once: it takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip, "get_tokenizer", cache(open_clip.get_tokenizer))
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")
