"""A Hugging Face cache and a folder of weights for tests, empty at first."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Look for weights in places that have none."""
    monkeypatch.setenv("SPAR_BENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def in_hub_cache(cache: Path, repository: str, folder: Path) -> Path:
    """Put a folder into a Hugging Face cache as huggingface_hub does."""
    place = cache / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / ("0" * 40)
    shutil.copytree(folder, snapshot)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    return snapshot
