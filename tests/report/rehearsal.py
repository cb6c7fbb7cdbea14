"""Results in which the paper's own numbers are fed as if they were those of runs."""

from dataclasses import replace

from spar_bench.published import Published, published
from spar_bench.results import Cost, Matched, Results, Row
from tests.report.synthetic import CLASSES, results_of, row

DATASETS = ["voc21", "voc20", "cityscapes", "ade20k", "context60", "context59"]
"""In the order of the main table."""
SIDES = {name: 1024 if name == "cityscapes" else 672 for name in DATASETS}
TIMED = "image_2048x1024"


def rehearsed(table: str) -> Results:
    """Return the results of a sweep that found exactly what a table of the paper says."""
    numbers = published(table)
    rows: dict[tuple[str, str, int], Row] = {}
    for one in numbers:
        for dataset, side_px in _places(one):
            key = group_of(one), dataset, side_px
            rows[key] = _with_number(rows.get(key) or _row(one, dataset, side_px), one, numbers)
    matches = [
        Matched(
            number=index, group=group_of(one), method=one.method, places=_places(one), departures=[]
        )
        for index, one in enumerate(numbers)
    ]
    known = list(rows.values())
    return results_of(
        known,
        experiment=table,
        question="",
        reproduces=table,
        matches=matches,
        classes={one.classes: CLASSES for one in known},
    )


def group_of(one: Published) -> str:
    """Return the name of the point that a number is about."""
    parts: list[object] = [one.backbone, one.method, one.stride_px, one.refiner]
    if one.method == "student":  # the time of a student does not depend on what it trained
        parts += [one.trainable or "last_2_blocks", one.images or "sa1b_25k"]
    return ",".join(map(str, parts))


def _places(one: Published) -> list[tuple[str, int]]:
    if one.effective_px is not None:
        return [(one.dataset, one.effective_px)]
    if one.dataset == TIMED:
        return [("cityscapes", 1024)]
    names = DATASETS if one.dataset == "mean6" else [one.dataset]
    return [(name, SIDES[name]) for name in names]


def _row(one: Published, dataset: str, side_px: int) -> Row:
    group = group_of(one)
    hw = (side_px, 2 * side_px) if one.effective_px is None else (side_px, side_px)
    extended = one.images == "sa1b_25k_extended"
    return row(
        one.method,
        None,
        group=group,
        trial=group,
        backbone=one.backbone,
        refiner=one.refiner,
        dataset=dataset,
        dataset_digest=dataset,
        eval_short_side_px=side_px,
        window_px=None if one.method == "pretrained" else 512,
        stride_px=one.stride_px,
        divides_patch=None if one.stride_px is None else one.stride_px % 16 == 0,
        trainable=(one.trainable or "last_2_blocks") if one.method == "student" else None,
        train_short_side_px=(512, 2560 if extended else 1024) if one.method == "student" else None,
        status="skipped",
        cost=Cost(image_h=hw[0], image_w=hw[1], gflops=1.0, device="a GPU"),
        stages={"evaluate": f"{group}/{dataset}/{side_px}"},
    )


def _with_number(known: Row, one: Published, numbers: list[Published]) -> Row:
    """Return a row that also has a number; a mean is that of each data set, if it is alone."""
    if one.quantity == "seconds":
        cost = replace(known.cost, latency_p50_ms=1000 * one.value, cost_status="finished")
        return replace(known, cost=cost)
    if one.quantity == "windows":
        return replace(known, cost=replace(known.cost, n_windows=round(one.value)))
    if one.dataset == "mean6" and any(other.dataset == known.dataset for other in numbers):
        return known
    return replace(known, miou=one.value / 100, status="finished")


def lines_of(table: str, quantity: str) -> list[list[Published]]:
    """Return the numbers of a quantity by the point that they are about."""
    groups: dict[str, list[Published]] = {}
    for one in published(table):
        if one.quantity == quantity:
            groups.setdefault(group_of(one), []).append(one)
    return list(groups.values())
