"""A sweep of two trials to mirror, and an empty MLflow database that is created once."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from spar_bench.results import Cost, Results, Row, TrialRecord
from spar_bench.track import Mirror

SPEC_HASH = "5bec" * 16


def make_row(**changes: Any) -> Row:
    """Return a teacher's row on 256x320 scenes."""
    row: dict[str, Any] = {
        "experiment": "stride", "group": "stride_px=28", "trial": "stride_px=28-s0", "seed": None,
        "backbone": "patchwork", "random_weights": False, "method": "teacher",
        "inference": "sliding_window",
        "average": "logits", "refiner": "none", "protocol": "paper", "window_px": 64,
        "stride_px": 28, "train_short_side_px": None, "loss": None, "trainable": None,
        "dataset": "patchwork", "dataset_digest": "d191e57", "eval_short_side_px": 256,
        "n_images": 2, "miou": 0.5,
        "dtype": "float32", "status": "finished", "swept": {"teacher.stride_px": 28},
        "stages": {"evaluate": "teacher28"},
        "cost": Cost(image_h=256, image_w=320, n_windows=88, gflops=13.2, latency_p50_ms=250.0),
    }  # fmt: skip
    return Row(**row | changes)


def make_trial(**changes: Any) -> TrialRecord:
    """Return a finished trial with a teacher's row, a short curve and no artifact."""
    trial: dict[str, Any] = {
        "trial": "stride_px=28-s0",
        "group": "stride_px=28",
        "seed": 0,
        "status": "finished",
        "reason": "",
        "params": {"teacher.stride_px": 28, "student.learning_rate": 1e-3},
        "rows": [make_row()],
        "curve": [(1, 2.5, 1_000_100), (2, 2.25, 1_000_200)],
        "started_ms": 1_000_000,
        "ended_ms": 1_060_000,
        "artifacts": {},
    }
    return TrialRecord(**trial | changes)


def make_results(rows: list[Row]) -> Results:
    """Return the results of a sweep with these rows."""
    return Results(
        experiment="stride",
        question="?",
        rows=rows,
        costs=[],
        classes={row.classes: ["sky", "sea"] for row in rows},
        provenance={},
        protocols={row.protocol: {"templates": row.protocol} for row in rows},
    )


def mirror(
    uri: str,
    folder: Path,
    trials: list[TrialRecord],
    *,
    status: Any = "finished",
    spec_hash: str = SPEC_HASH,
    experiment: str = "stride",
) -> None:
    """Mirror a whole sweep, as a separate process would."""
    results = folder / "results"
    make_results([row for trial in trials for row in trial.rows]).save(results)
    sweep = Mirror(uri)
    sweep.start(experiment, "question: ?\n", spec_hash, {"backbone.name": "patchwork"})
    for trial in trials:
        sweep.record(trial)
    sweep.finish(results, status)


def query(uri: str, sql: str) -> list[tuple[Any, ...]]:
    """Query the database directly, bypassing MLflow."""
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        return connection.execute(sql).fetchall()


def dump(uri: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of the tables that hold runs."""
    tables = ["runs", "metrics", "latest_metrics", "params", "tags", "experiments"]
    return {table: sorted(query(uri, f"SELECT * FROM {table}"), key=repr) for table in tables}


@pytest.fixture
def uri(database: Path, tmp_path: Path) -> str:
    """Return the URI of a fresh database, in a folder whose name needs quoting in a URI."""
    folder = tmp_path / "a b"
    folder.mkdir()
    shutil.copy(database, folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"
