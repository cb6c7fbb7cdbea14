"""A sweep to mirror, and an empty MLflow database that is created once."""

import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from spar_bench.results import Cost, Row
from spar_bench.stage import digest
from spar_bench.track import Details, Ending, Mirror, RunRecord, SweepRecord

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


def make_record(
    *,
    curve: Sequence[tuple[int, float, int]] = ((1, 2.5, 1_000_100), (2, 2.25, 1_000_200)),
    artifacts: dict[str, Path] | None = None,
    started_ms: int = 1_000_000,
    ended_ms: int = 1_060_000,
    **changes: Any,
) -> RunRecord:
    """Return a finished teacher's run with a short curve and no artifact."""
    files = artifacts or {}
    contents = {name: path.read_text() for name, path in files.items()}
    record: dict[str, Any] = {
        "key": changes.get("name", "teacher28"),
        "name": "stride_px=28",
        "trial": changes.get("name", "stride_px=28"),
        "group": "stride_px=28",
        "seed": None,
        "method": "teacher",
        "status": "finished",
        "reason": "",
        "params": {"teacher.stride_px": 28, "student.learning_rate": 1e-3},
        "rows": [make_row()],
        "details_key": digest([repr(curve), contents]),
        "read": lambda: Details(
            curve=list(curve), started_ms=started_ms, ended_ms=ended_ms, artifacts=files
        ),
    }
    return RunRecord(**record | changes)


def make_sweep(experiment: str = "stride", spec_hash: str = SPEC_HASH) -> SweepRecord:
    """Return a sweep with one seed."""
    return SweepRecord(
        experiment=experiment,
        spec_hash=spec_hash,
        question="Does it?",
        params={"seeds": [0]},
        started_ms=900_000,
    )


def make_ending(records: Iterable[RunRecord], **changes: Any) -> Ending:
    """Return the end of a sweep that has these runs, with a file of its rows."""
    rows = [row for record in records for row in record.rows]
    text = repr(rows)
    ending: dict[str, Any] = {
        "status": "finished",
        "ended_ms": 1_100_000,
        "rows": rows,
        "keys": {record.key for record in records},
        "digest": digest(text),
        "write": lambda folder: (folder / "rows.txt").write_text(text),
    }
    return Ending(**ending | changes)


def mirror(uri: str, *records: RunRecord, sweep: SweepRecord | None = None, **ending: Any) -> None:
    """Mirror a whole sweep, as a separate process would."""
    shown = Mirror(uri, sweep or make_sweep())
    assert shown.record(records)
    assert shown.end(make_ending(records, **ending))


def die(sweep: Mirror, uri: str) -> None:
    """Leave what a killed process does: a parent that is RUNNING, and a lock that is free."""
    sweep.interrupt()
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE runs SET status = 'RUNNING' WHERE name LIKE '% 5bec5bec'")


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
