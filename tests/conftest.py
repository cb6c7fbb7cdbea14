"""The setup of every test: fixed seeds, and a separate cache folder."""

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of workers and their children would compete
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

import spar_bench
from tests.places import bare, database, here, in_swept, swept

torch.set_num_threads(1)  # for fixtures, too: on small tensors, a second thread only waits

__all__ = ["bare", "database", "here", "in_swept", "swept"]


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Seed every global generator."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the package caches between runs out of the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with pytest.MonkeyPatch.context() as patch:
        # Matplotlib's cache stays where it is: building its list of fonts takes seconds.
        patch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR") or str(cache / "matplotlib"))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give these tests a machine lock of their own, which no other work holds."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("machine"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", tempfile.tempdir)
        yield
    tempfile.tempdir = before


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the slow tests, the photographs first, so that no worker waits at the end."""
    items.sort(
        key=lambda item: (item.get_closest_marker("slow") is None, "photographs" not in item.nodeid)
    )


def pytest_report_header() -> str:
    """Say where the package under test is: an installed copy is easily tested by mistake."""
    return f"spar_bench: {Path(spar_bench.__file__).parent}"
