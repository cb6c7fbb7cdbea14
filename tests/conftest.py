"""What every test starts from: fixed seeds, and a home folder of its own."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

import spar_bench


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Seed every global generator."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the package remembers between runs out of the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def pytest_report_header() -> str:
    """Say where the package under test lies: an installed copy is easily tested by mistake."""
    return f"spar_bench: {Path(spar_bench.__file__).parent}"
