"""Synthetic results: the paper's stride figure, and a stride sweep with students and seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spar_bench.accuracy import Counts
from spar_bench.report.aggregates import read_aggregates
from spar_bench.report.differences import Comparison, comparisons
from spar_bench.report.measuring import Resampler
from spar_bench.results import Cost, Preview, Results, Row, Training

CLASSES = [
    "stripes", "checkers", "dots", "waves", "bricks", "lattice", "gravel", "disc", "square",
    "triangle", "star", "ring",
]  # fmt: skip
PAPER = {
    512: (33.9, 0.134, 8), 256: (35.5, 0.346, 21), 128: (37.1, 1.09, 65), 64: (38.1, 3.75, 225),
    56: (40.0, 5.3, 319), 40: (40.8, 9.3, 560), 32: (39.4, 13.8, 833), 24: (41.2, 24.7, 1495),
    16: (39.7, 52.9, 3201), 8: (41.5, 209, 12545),
}  # fmt: skip
STRIDES = {64: 44.0, 32: 45.1, 28: 46.5, 16: 45.5, 12: 46.7, 8: 45.6, 4: 46.8}


def row(method: str, miou: float | None, **changes: Any) -> Row:
    """Return a finished row of `method` at `miou` (a fraction), with matching settings."""
    sliding = method == "teacher"
    student = method == "student"
    values: dict[str, Any] = {
        "experiment": "stride",
        "group": "a",
        "trial": "a-0",
        "seed": 0 if student else None,
        "backbone": "patchwork",
        "random_weights": False,
        "method": method,
        "inference": "sliding_window" if sliding else "single_pass",
        "average": "logits" if sliding else None,
        "refiner": "none",
        "protocol": "openclip_80",
        "window_px": None if method == "pretrained" else 64,
        "stride_px": None if method == "pretrained" else 12,
        "train_short_side_px": (128, 320) if student else None,
        "loss": "mse" if student else None,
        "trainable": "last_2_blocks" if student else None,
        "dataset": "patchwork",
        "dataset_digest": "d191e57",
        "eval_short_side_px": 256,
        "n_images": 48,
        "miou": miou,
        "dtype": "float32",
        "status": "finished",
        "cost": cost(0.9),
    }
    return Row(**values | changes)


def cost(gflops: float, *, n_windows: int = 1, latency_ms: float | None = None) -> Cost:
    """Return what a pass costs; the latency follows from the GFLOPs unless given."""
    p50 = latency_ms or 8 * gflops
    return Cost(
        image_h=256,
        image_w=320,
        n_windows=n_windows,
        gflops=gflops,
        latency_p10_ms=0.95 * p50,
        latency_p50_ms=p50,
        latency_p90_ms=1.1 * p50,
        encoder_p50_ms=0.8 * p50,
        peak_mib=240.0,
        params_m=1.3,
        device="cpu",
        cost_status="finished",
    )


def training(train_gflops: float | None, **changes: Any) -> Training:
    """Return what a student took; targets and time follow from its own GFLOPs unless given."""
    values: dict[str, Any] = {"train_images": 200, "epochs": 4, "trained_params_m": 0.4}
    if train_gflops is not None:
        values |= {"teach_gflops": 2 * train_gflops, "train_seconds": train_gflops / 8}
    return Training(**values | {"train_gflops": train_gflops} | changes)


def windows(stride_px: int) -> int:
    """Count the 64 px windows of a 256x320 image, the last of each axis flush with the border."""
    down, across = (-(-(side - 64) // stride_px) + 1 for side in (256, 320))
    return down * across


def teacher(stride_px: int, percent: float, **changes: Any) -> Row:
    """Return the row of a teacher on patches of 8 px."""
    count = windows(stride_px)
    settings = {
        "stride_px": stride_px,
        "group": f"stride_px={stride_px}",
        "trial": f"stride_px={stride_px}-0",
        "cost": cost(0.13 * count, n_windows=count),
        "divides_patch": stride_px % 8 == 0,
        "swept": {"teacher.stride_px": stride_px},
        "stages": {"evaluate": f"teacher{stride_px}"},
    }
    return row("teacher", percent / 100, **settings | changes)


def students(trainable: str, percent: float, *, n_seeds: int = 3, **changes: Any) -> list[Row]:
    """Return the rows of a student, its mIoU 0.4 points apart from seed to seed."""
    rows = []
    for seed in range(n_seeds):
        settings = {
            "seed": seed,
            "group": f"trainable={trainable}",
            "trial": f"trainable={trainable}-{seed}",
            "trainable": trainable,
            "swept": {"student.trainable": trainable},
            "stages": {"evaluate": f"student_{trainable}_{seed}"},
        }
        rows.append(row("student", (percent + 0.4 * (seed - 1)) / 100, **settings | changes))
    return rows


def imported(percent: float, file: str = "spar.ckpt") -> Row:
    """Return the row of a student that was trained elsewhere: little of it is known."""
    return row(
        "student",
        percent / 100,
        checkpoint=file,
        seed=None,
        group=f"checkpoint={file}",
        trial=f"checkpoint={file}",
        swept={"student.checkpoint": f"weights/{file}"},
        stages={"evaluate": f"imported {file}"},
        **dict.fromkeys(("loss", "stride_px", "window_px", "train_short_side_px")),
    )


def baseline(percent: float, **changes: Any) -> Row:
    """Return the row of the pretrained single pass."""
    return row("pretrained", percent / 100, **{"stages": {"evaluate": "pretrained"}} | changes)


def counts_of(percent: float, seed: int, n_images: int = 12) -> Counts:
    """Return counts whose mIoU is near `percent`."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.5, 1.5, (n_images, len(CLASSES)))
    true = (4000 * share).astype(np.int64)
    hit = 2 * percent / (100 + percent) * rng.uniform(0.8, 1.2, true.shape)
    correct = (true * np.clip(hit, 0, 1)).astype(np.int64)
    return Counts(correct=correct, predicted=true, true=true)


def preview_of(seed: int, n_classes: int = len(CLASSES)) -> Preview:
    """Return three small scenes of blocks; the seed draws the prediction alone."""
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    shapes = [(48, 60), (48, 64), (64, 48)]
    truths = [_blocks(world.integers(0, n_classes, (h // 12, w // 12)), (h, w)) for h, w in shapes]
    truths[0][:6] = 255
    colors = world.integers(30, 225, (256, 3), dtype=np.uint8)
    images = [colors[t] for t in truths]
    predictions = [
        np.where(
            _blocks(rng.random((t.shape[0] // 6, t.shape[1] // 6)) < 0.3, t.shape).astype(bool),
            rng.integers(0, n_classes),
            np.where(t == 255, 0, t),
        ).astype(np.uint8)
        for t in truths
    ]
    return Preview([f"scene_{i}.png" for i in range(3)], images, truths, predictions)


def features_of(seed: int) -> NDArray[np.float64]:
    """Return features `(8, 12, 15)` of the first scene: its blocks, and noise drawn by the seed."""
    truth = preview_of(0).truths[0][::4, ::4]
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(7).normal(size=(256, 8))
    noise = rng.normal(scale=0.1 * (1 + seed), size=(8, *truth.shape))
    features: NDArray[np.float64] = np.moveaxis(directions[truth], -1, 0) + noise
    return features


def _blocks(values: NDArray[Any], hw: tuple[int, ...]) -> NDArray[np.uint8]:
    tall = np.repeat(values, -(-hw[0] // values.shape[0]), axis=0)
    return np.repeat(tall, -(-hw[1] // values.shape[1]), axis=1)[: hw[0], : hw[1]].astype(np.uint8)


@dataclass(frozen=True)
class InMemory:
    """Evaluations that are not in a store."""

    all_counts: Mapping[str, Counts] = field(default_factory=dict)
    previews: Mapping[str, Preview] = field(default_factory=dict)
    all_features: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)

    def counts(self, fingerprint: str) -> Counts | None:
        return self.all_counts.get(fingerprint)

    def preview(self, fingerprint: str) -> Preview | None:
        return self.previews.get(fingerprint)

    def features(self, fingerprint: str) -> NDArray[np.floating[Any]] | None:
        return self.all_features.get(fingerprint)


def evaluations_of(results: Results) -> InMemory:
    """Return counts and previews for every finished row."""
    finished = [r for r in results.rows if r.miou is not None and "evaluate" in r.stages]
    keys = {r.stages["evaluate"]: r.miou for r in finished}
    counts = {key: counts_of(100 * (miou or 0), i) for i, (key, miou) in enumerate(keys.items())}
    return InMemory(
        _same_truth(counts),
        {key: preview_of(i) for i, key in enumerate(keys)},
        {key: features_of(i) for i, key in enumerate(keys)},
    )


def compared_in(results: Results) -> list[Comparison]:
    """Return the comparisons of all rows, whose evaluations are made for it."""
    return comparisons(read_aggregates(results), Resampler(evaluations_of(results)))


def results_of(rows: list[Row], **changes: Any) -> Results:
    """Return the results of a sweep with these rows."""
    values: dict[str, Any] = {
        "experiment": "stride",
        "question": "What does a finer stride buy, what does it cost, and does one pass get there?",
        "rows": rows,
        "costs": [],
        "classes": {r.classes: CLASSES for r in rows},
        "protocols": {r.protocol: {"templates": r.protocol} for r in rows},
        "provenance": {"commit": "0123abc", "spec_sha256": "00ff", "stages": {}},
    }
    return Results(**values | changes)


def _same_truth(counts: dict[str, Counts]) -> dict[str, Counts]:
    first = next(iter(counts.values()), None)
    if first is None:
        return {}
    return {
        key: Counts(np.minimum(c.correct, first.true), first.true, first.true)
        for key, c in counts.items()
    }


def paper_results() -> Results:
    """Return the paper's stride figure: ten strides, single pass and SPAR, with published times."""
    rows = [
        teacher(
            stride,
            percent,
            window_px=512,
            divides_patch=stride % 16 == 0,
            cost=cost(210 * n_windows, n_windows=n_windows, latency_ms=1000 * seconds),
        )
        for stride, (percent, seconds, n_windows) in PAPER.items()
    ]
    single = cost(4700, latency_ms=480)
    rows.append(baseline(33.1, cost=single))
    rows += students("last_2_blocks", 43.6, n_seeds=1, cost=single, stride_px=24, window_px=512)
    return results_of(rows)


def stride_results(n_seeds: int = 3) -> Results:
    """Return the shipped stride sweep: seven strides, single pass, two students of three seeds."""
    rows = [teacher(stride, percent) for stride, percent in STRIDES.items()]
    for trainable, percent in (("last_2_blocks", 42.7), ("all", 45.2)):
        group = {"group": f"trainable={trainable}", "swept": {"student.trainable": trainable}}
        for seed in range(n_seeds):
            trial = {"trial": f"trainable={trainable}-{seed}", **group}
            rows += [baseline(38.3, **trial), teacher(12, STRIDES[12], **trial)]
        rows += students(trainable, percent, n_seeds=n_seeds)
    return results_of(rows)
