"""What a sweep found: rows, costs, per-image counts and previews.

The session writes it, `report` reads it. `Results.save` writes a self-contained folder: it is
attached to the MLflow run of its sweep, so that a report can be built without the store.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from spar_bench.accuracy import Counts
from spar_bench.errors import StoreError
from spar_bench.files import replace_bytes, replace_text

Status = Literal["finished", "failed", "blocked", "pruned", "skipped", "not_measured"]
"""Status of a trial or stage; `skipped` was not run, `pruned` was given up by a search."""

RESULTS_FORMAT = 1
"""To be raised with any change of the files, or of their digest, that older results do not meet."""
RESULTS_FILE = "results.json"
COUNTS_FILE = "counts.safetensors"
PREVIEWS_FILE = "previews.safetensors"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one image of one size with one method; None where it was not measured."""

    image_h: int | None = None
    image_w: int | None = None
    n_windows: int | None = None
    gflops: float | None = None
    latency_p10_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    encoder_p50_ms: float | None = None
    peak_mib: float | None = None
    params_m: float | None = None
    device: str | None = None
    cost_status: Status = "not_measured"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of results.csv: a (trial, method, data set, resolution).

    `seed` is None where no seed can affect the number (pretrained and teacher).
    """

    experiment: str
    group: str
    trial: str
    seed: int | None
    backbone: str
    method: str
    inference: str
    average: str | None
    refiner: str
    protocol: str
    window_px: int | None
    stride_px: int | None
    train_short_side_px: str | None
    loss: str | None
    trainable: str | None
    dataset: str
    eval_short_side_px: int
    n_images: int | None
    n_skipped: int | None = None
    miou: float | None
    dtype: str
    status: Status
    cost: Cost = Cost()
    reason: str = ""
    divides_patch: bool | None = None
    swept: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)


COLUMNS = [
    "experiment", "group", "trial", "seed", "backbone", "method", "inference", "average",
    "refiner", "protocol", "window_px", "stride_px", "train_short_side_px", "loss", "trainable",
    "dataset", "eval_short_side_px", "image_h", "image_w", "n_images", "n_skipped",
    "n_windows", "miou", "gflops", "latency_p10_ms", "latency_p50_ms", "latency_p90_ms",
    "encoder_p50_ms", "peak_mib", "params_m", "device", "dtype", "status", "cost_status",
]  # fmt: skip
"""The columns of results.csv, in order; followed by one for each other swept key."""

COST_COLUMNS = [
    "backbone", "method", "inference", "average", "refiner", "window_px", "stride_px", "dtype",
    *[f.name for f in dataclasses.fields(Cost)],
]  # fmt: skip
"""The columns of costs.csv, in order."""


@dataclass(frozen=True)
class Preview:
    """The first validation images and their predictions in one evaluation.

    Lists of equal length: names, images `(H, W, 3)`, truth and prediction `(H, W)`, all uint8.
    """

    names: list[str]
    images: list[NDArray[np.uint8]]
    truths: list[NDArray[np.uint8]]
    predictions: list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Results:
    """Everything that a report shows about one sweep.

    `costs` holds one flat dict (keys: COST_COLUMNS) for each method and each further image size;
    `classes` the class names by data set; `counts` and `previews` are keyed by the fingerprint of
    the evaluation, which a row has under `stages["evaluate"]`. `objectives` holds a search's
    scores: objective to value, by trial; empty for a grid. `protocols` holds what each protocol
    named in rows declares.
    """

    experiment: str
    question: str
    rows: list[Row]
    costs: list[dict[str, Any]]
    classes: dict[str, list[str]]
    counts: dict[str, Counts]
    previews: dict[str, Preview]
    provenance: dict[str, Any]
    protocols: dict[str, dict[str, Any]]
    objectives: dict[str, dict[str, float]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write `results.json`, `counts.safetensors` and `previews.safetensors` into `folder`.

        Raises:
            StoreError: the disk is full, or the folder is not writable.
        """
        document = {
            "format": RESULTS_FORMAT,
            "experiment": self.experiment,
            "question": self.question,
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "costs": self.costs,
            "classes": self.classes,
            "preview_names": {key: preview.names for key, preview in self.previews.items()},
            "provenance": self.provenance,
            "objectives": self.objectives,
            "images": {key: counts.images for key, counts in self.counts.items()},
            "protocols": self.protocols,
        }
        replace_text(folder / RESULTS_FILE, json.dumps(document, indent=1, allow_nan=False))
        _replace_tensors(
            folder / COUNTS_FILE,
            {
                f"{key}/{name}": getattr(counts, name)
                for key, counts in self.counts.items()
                for name in ("correct", "predicted", "true")
            },
        )
        _replace_tensors(
            folder / PREVIEWS_FILE,
            {
                f"{key}/{kind}/{index}": array
                for key, preview in self.previews.items()
                for kind in ("images", "truths", "predictions")
                for index, array in enumerate(getattr(preview, kind))
            },
        )

    @classmethod
    def load(cls, folder: Path) -> "Results":
        """Read back what `save` wrote."""
        document = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
        counts = load_file(folder / COUNTS_FILE)
        arrays = load_file(folder / PREVIEWS_FILE)
        return cls(
            experiment=document["experiment"],
            question=document["question"],
            rows=_rows(document),
            costs=document["costs"],
            classes=document["classes"],
            counts={
                key: Counts(
                    counts[f"{key}/correct"],
                    counts[f"{key}/predicted"],
                    counts[f"{key}/true"],
                    document["images"][key],
                )
                for key in sorted({name.split("/")[0] for name in counts})
            },
            previews={
                key: Preview(
                    names,
                    *(
                        [arrays[f"{key}/{kind}/{index}"] for index in range(len(names))]
                        for kind in ("images", "truths", "predictions")
                    ),
                )
                for key, names in document["preview_names"].items()
            },
            provenance=document["provenance"],
            objectives=document["objectives"],
            protocols=document["protocols"],
        )


def is_of_this_format(folder: Path) -> bool:
    """Tell whether this version wrote `results.json`, or another one with the same format."""
    try:
        document = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # half a file, which says nothing
        return True
    return isinstance(document, dict) and document.get("format") == RESULTS_FORMAT


def read_rows(folder: Path) -> list[Row]:
    """Return only the rows that `Results.save` wrote: one file, so intact even after a kill.

    Raises:
        StoreError: the file cannot be read, or holds something else.
    """
    path = folder / RESULTS_FILE
    try:
        return _rows(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: must hold the rows of a sweep, but cannot be read; nothing is lost: the next "
            f"sweep of {folder.name} rewrites it"
        ) from error


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial as shown in MLflow: its settings, rows, training curve and pictures.

    `curve` holds (step, loss, milliseconds since the epoch); `artifacts` maps a path inside the
    run's artifacts to a file on disk.
    """

    trial: str
    group: str
    seed: int | None
    status: Status
    reason: str
    params: dict[str, Any]
    rows: list[Row]
    curve: list[tuple[int, float, int]]
    started_ms: int
    ended_ms: int
    artifacts: dict[str, Path]


def _rows(document: dict[str, Any]) -> list[Row]:
    return [Row(**row | {"cost": Cost(**row["cost"])}) for row in document["rows"]]


def _replace_tensors(path: Path, tensors: dict[str, NDArray[Any]]) -> None:
    replace_bytes(path, save({key: np.ascontiguousarray(value) for key, value in tensors.items()}))
