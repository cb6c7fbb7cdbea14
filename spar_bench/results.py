"""What a sweep found: its rows, costs and protocols, in one file of the store.

The session writes it, `report` reads it. Counts and previews stay with the evaluations, which rows
name by fingerprint (`evaluations.py`).
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spar_bench.errors import StoreError
from spar_bench.files import replace_text
from spar_bench.validation import Raw

Status = Literal["finished", "failed", "blocked", "pruned", "skipped", "not_measured"]
"""Status of a trial or stage; `skipped` was not run, `pruned` was given up by a search."""

RESULTS_FORMAT = 4
"""To be raised with any change of the file that older results do not meet."""
RESULTS_FILE = "results.json"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one image of one size with one method; None where it was not measured.

    `window_batch` is how many windows were encoded at once when it was timed, None in a single
    pass; `latency_note` says why its latency does not stand for a quiet machine, if it does not.
    """

    image_h: int | None = None
    image_w: int | None = None
    n_windows: int | None = None
    gflops: float | None = None
    latency_p10_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    encoder_p50_ms: float | None = None
    peak_mib: float | None = None
    window_batch: int | None = None
    params_m: float | None = None
    device: str | None = None
    latency_note: str = ""
    cost_status: Status = "not_measured"


@dataclass(frozen=True, kw_only=True)
class Training:
    """What it took to make a student; None where that is not known, as for an imported one.

    `train_images` is how many images were drawn, each read `epochs` times. `train_gflops` is the
    student's own part, passes and its optimiser's products; `teach_gflops` is the teacher's: all
    images once if the targets are kept, which students of one teacher share, else once an epoch. A
    student alone costs their sum. `train_seconds` includes the teacher's part unless targets are
    kept.
    """

    train_images: int | None = None
    epochs: int | None = None
    trained_params_m: float | None = None
    teach_gflops: float | None = None
    train_gflops: float | None = None
    train_seconds: float | None = None

    @property
    def total_gflops(self) -> float | None:
        """What a student costs with its targets, if both are known."""
        if self.teach_gflops is None or self.train_gflops is None:
            return None
        return self.teach_gflops + self.train_gflops


@dataclass(frozen=True, kw_only=True)
class OverSizes:
    """Cost of a method over the images of a data set, each at its own size; None if not known.

    GFLOPs are those of each image in closed form; an image whose size cannot be read is not
    counted. Latency is by a curve, `base_ms + ms_a_gflop * GFLOPs + ms_a_megapixel * megapixels`,
    through the medians at `n_timed` sizes. `fit_error` is the mean relative error at each of these
    of the curve through the others, and `fit_note` says why they do not stand for a quiet machine,
    if they do not.
    """

    n_images: int
    n_sizes: int
    gflops_mean: float | None = None
    gflops_sum: float | None = None
    gflops_p10: float | None = None
    gflops_p50: float | None = None
    gflops_p90: float | None = None
    n_timed: int = 0
    latency_mean_ms: float | None = None
    images_per_s: float | None = None
    fit_error: float | None = None
    base_ms: float | None = None
    ms_a_gflop: float | None = None
    ms_a_megapixel: float | None = None
    fit_note: str = ""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A method that reads images, and what one of them costs."""

    backbone: str
    random_weights: bool
    method: str
    inference: str
    average: str | None
    refiner: str
    classifier: str = "text"
    window_px: int | None
    stride_px: int | None
    dataset: str
    dtype: str
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class Row(Reading):
    """One line of results.csv: a (trial, method, data set, resolution).

    `seed` is None where no seed can affect the number (pretrained and teacher). `dataset_digest`
    is that of all that decides the data set's images and labels, `protocol` a digest of the
    evaluation protocol; `checkpoint` is the file that a student was imported from; `probes` has the
    summary of each probe that was asked for, by kind; empty if it is not finished. `n_listed` is
    how many images the data set has, where those of the row are evenly spaced among them.
    """

    experiment: str
    group: str
    trial: str
    seed: int | None
    protocol: str
    train_short_side_px: tuple[int, int] | None
    loss: str | None
    trainable: str | None
    checkpoint: str | None = None
    dataset_digest: str
    eval_short_side_px: int
    n_images: int | None
    n_listed: int | None = None
    n_skipped: int | None = None
    miou: float | None
    status: Status
    cost: Cost = Cost()
    training: Training = Training()
    reason: str = ""
    divides_patch: bool | None = None
    swept: dict[str, object] = field(default_factory=dict)
    probes: dict[str, Raw] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)

    @property
    def probed(self) -> dict[str, object]:
        """What its probes found, by kind and name."""
        return {
            f"{kind}.{name}": value
            for kind, found in self.probes.items()
            for name, value in found.items()
        }

    @property
    def classes(self) -> str:
        """The key of its class names in `Results.classes`."""
        return f"{self.dataset_digest}/{self.protocol}"


@dataclass(frozen=True, kw_only=True)
class Matched:
    """The rows that a number of the paper is about: of a method in a group, one a place and seed.

    `number` is its index among those of the table that `Results.reproduces` names; `places` are
    data sets with their resolutions. `departures` say in what they differ from the paper's, which
    keeps them from being compared.
    """

    number: int
    group: str
    method: str
    places: list[tuple[str, int]]
    departures: list[str]


@dataclass(frozen=True, kw_only=True)
class CostRow(Reading):
    """One line of costs.csv: a method at one image size, labelling as a data set asks."""


@dataclass(frozen=True, kw_only=True)
class SizesRow(Reading):
    """One line of sizes.csv: a method over the images of a data set at one resolution.

    `cost` is that of an image of the declared size, as in the method's rows.
    """

    eval_short_side_px: int
    over: OverSizes


COLUMNS = [
    "experiment", "group", "trial", "seed", "backbone", "method", "inference", "average",
    "refiner", "classifier", "protocol", "window_px", "stride_px", "train_short_side_px", "loss",
    "trainable", "dataset", "eval_short_side_px", "image_h", "image_w", "n_images", "n_skipped",
    "n_windows", "miou", "gflops", "latency_p10_ms", "latency_p50_ms", "latency_p90_ms",
    "encoder_p50_ms", "peak_mib", "window_batch", "params_m",
    *[f.name for f in dataclasses.fields(Training)],
    "device", "dtype", "status", "cost_status", "latency_note",
]  # fmt: skip
"""The columns of results.csv, in order; followed by one for each other swept key, then probes'."""

MADE_BY = {
    "miou": "evaluate",
    "n_windows": "cost",
    "gflops": "cost",
    "params_m": "cost",
    "latency_p10_ms": "latency",
    "latency_p50_ms": "latency",
    "latency_p90_ms": "latency",
    "encoder_p50_ms": "latency",
    "peak_mib": "latency",
    **{one.name: "student" for one in dataclasses.fields(Training)},
}
"""The measured columns, each with the role of the stage that its numbers come from."""

COST_COLUMNS = [
    "backbone", "method", "inference", "average", "refiner", "classifier", "window_px", "stride_px",
    "dataset", "dtype", *[f.name for f in dataclasses.fields(Cost)],
]  # fmt: skip
"""The columns of costs.csv, in order."""

SIZES_COLUMNS = [
    "backbone", "method", "inference", "average", "refiner", "window_px", "stride_px", "dataset",
    "eval_short_side_px", "dtype", *[f.name for f in dataclasses.fields(OverSizes)],
    "image_h", "image_w", "gflops", "latency_p50_ms", "device",
]  # fmt: skip
"""The columns of sizes.csv, in order; those of one image of the declared size come last."""


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

    `costs` has a row for each method, data set and further image size, `sizes` one for each method
    over the sizes of a data set's images. `classes` has the names that figures show, by
    `Row.classes`. `objectives` holds a search's scores: objective to value, by trial; empty for a
    grid. `protocols` holds what each protocol named in rows declares.
    `spec` is the text of the spec; `reproduces` the paper's table that it names, `matches` its rows
    that a number of that table is about; `claims` has its claims as JSON (`claims.Claim`);
    `settings` holds the settings of each group as JSON.
    """

    experiment: str
    question: str
    rows: list[Row]
    costs: list[CostRow]
    classes: dict[str, list[str]]
    provenance: dict[str, Any]
    protocols: dict[str, dict[str, object]]
    objectives: dict[str, dict[str, float]] = field(default_factory=dict)
    spec: str = ""
    reproduces: str | None = None
    matches: list[Matched] = field(default_factory=list)
    claims: list[Raw] = field(default_factory=list)
    settings: dict[str, Raw] = field(default_factory=dict)
    sizes: list[SizesRow] = field(default_factory=list)

    @property
    def has_failed(self) -> bool:
        """Whether a row failed, or what it needs did."""
        return any(row.status in ("failed", "blocked") for row in self.rows)

    def save(self, folder: Path) -> None:
        """Write `results.json` into `folder`.

        Raises:
            StoreError: the disk is full, or the folder is not writable.
        """
        replace_text(folder / RESULTS_FILE, self.as_json())

    def as_json(self) -> str:
        """Return the content of `results.json`."""
        document = {"format": RESULTS_FORMAT, **dataclasses.asdict(self)}
        return json.dumps(document, indent=1, allow_nan=False)

    @classmethod
    def load(cls, folder: Path) -> "Results":
        """Read back what `save` wrote.

        Raises:
            StoreError: the file cannot be read, or is of another format.
        """
        path = folder / RESULTS_FILE
        way_out = f"nothing is lost: the next sweep of {folder.name} rewrites it"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.pop("format") != RESULTS_FORMAT:
                raise StoreError(
                    f"{path}: must be of format {RESULTS_FORMAT}, but another version of "
                    f"spar-bench wrote it; {way_out}"
                )
            rows = [_row(row) for row in document.pop("rows")]
            costs = [
                CostRow(**row | {"cost": Cost(**row["cost"])}) for row in document.pop("costs")
            ]
            sizes = [_sizes_row(row) for row in document.pop("sizes", [])]
            matches = [_matched(one) for one in document.pop("matches")]
            return cls(rows=rows, costs=costs, sizes=sizes, matches=matches, **document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{path}: must hold the results of a sweep, but cannot be read; {way_out}"
            ) from error


def _sizes_row(values: Raw) -> SizesRow:
    return SizesRow(
        **values | {"cost": Cost(**values["cost"]), "over": OverSizes(**values["over"])}
    )


def _matched(values: Raw) -> Matched:
    places = [(dataset, side_px) for dataset, side_px in values["places"]]
    return Matched(**values | {"places": places})


def _row(values: Raw) -> Row:
    sides = values["train_short_side_px"]
    return Row(
        **values
        | {
            "cost": Cost(**values["cost"]),
            "training": Training(**values["training"]),
            "train_short_side_px": None if sides is None else tuple(sides),
        }
    )
