"""Fixtures: a folder to run in, with a fresh database, and one where a sweep has finished."""

import shutil
from pathlib import Path

import pytest

from spar_bench.track.client import connect
from tests.small import TIMED, spar_bench, write_spec


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create one empty database: MLflow takes two seconds for its tables."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def here(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder with a fresh database."""
    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def swept(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder where a small sweep, timings included, has finished; not to be changed."""
    folder = tmp_path_factory.mktemp("swept")
    shutil.copy(database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        spar_bench("sweep", write_spec(TIMED))
    return folder


@pytest.fixture
def in_swept(swept: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work where a small sweep has finished; for commands that change nothing there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(swept)
    return swept


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with no weights or data anywhere."""
    monkeypatch.chdir(tmp_path)
    for variable in ("SPAR_BENCH_WEIGHTS", "SPAR_BENCH_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path
