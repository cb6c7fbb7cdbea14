"""The table of what each method costs over the images of a data set, each at its own size."""

from collections.abc import Iterator

from spar_bench.report import text
from spar_bench.report.columns import NOT_MEASURED, NOT_PART, NOTED
from spar_bench.report.names import backbone_name, value_text
from spar_bench.report.page import Block, Cell, Heading, Table, Text
from spar_bench.report.tables import METHOD_NAMES, header_of
from spar_bench.results import Results, SizesRow

_NOTE = (
    "Costs in the tables above are for one image of one size; here each image counts at its own, "
    "as it is read. GFLOPs are the closed form of every image. Latency is a + b × GFLOPs + c × "
    "pixels, with factors that are not negative, fitted to the medians at up to five sizes from "
    "the smallest to the largest; in brackets is the mean error at each of these, in percent, of "
    "the curve through the others. sizes.csv has its factors."
)
_SETTINGS = (
    "backbone", "window_px", "stride_px", "average", "refiner", "dtype", "dataset",
    "eval_short_side_px",
)  # fmt: skip
_HEADERS = [
    "Images", "Sizes", "GFLOPs, mean", "GFLOPs, p10–p90", "Latency, mean (ms)", "Images per s",
]  # fmt: skip


def sizes_section(results: Results) -> Iterator[Block]:
    """Yield the table and what explains it, if a data set has images of several sizes."""
    rows = [row for row in results.sizes if row.over.n_sizes > 1]
    if not rows:
        return
    yield Heading("Cost over all images")
    yield _table(rows)
    noted = any(row.over.fit_note for row in rows)
    yield Text(_NOTE, "note")
    if noted:
        yield Text(f"{NOTED} As on a loaded machine: fit_note in sizes.csv says why.", "note")


def _table(rows: list[SizesRow]) -> Table:
    settings = [_settings(row) for row in rows]
    varying = [name for name in _SETTINGS if len({one[name] for one in settings}) > 1]
    headers = ["Method", *map(header_of, varying)]
    return Table(
        caption="Cost over all images"
        if "dataset" in varying
        else f"Cost over all images: {rows[0].dataset}",
        groups=[("", len(headers) + len(_HEADERS))],
        headers=[*headers, *_HEADERS],
        rows=[
            [
                Cell(METHOD_NAMES.get(row.method, row.method)),
                *(_setting_cell(own[name]) for name in varying),
                *_cells(row),
            ]
            for row, own in zip(rows, settings, strict=True)
        ],
        n_text=len(headers),
    )


def _settings(row: SizesRow) -> dict[str, object]:
    values = {**vars(row), "backbone": backbone_name(row)}
    return {name: values[name] for name in _SETTINGS}


def _setting_cell(value: object) -> Cell:
    return NOT_PART if value is None else Cell(value_text(value))


def _cells(row: SizesRow) -> Iterator[Cell]:
    over = row.over
    yield Cell(str(over.n_images))
    yield Cell(str(over.n_sizes))
    yield _number(over.gflops_mean)
    if over.gflops_p10 is None or over.gflops_p90 is None:
        yield NOT_MEASURED
    else:
        yield Cell(f"{text.significant(over.gflops_p10)}–{text.significant(over.gflops_p90)}")
    if over.latency_mean_ms is None or over.fit_error is None:
        yield _number(over.latency_mean_ms)
    else:
        mark = NOTED if over.fit_note else ""
        error = text.percent(over.fit_error)
        yield Cell(f"{text.significant(over.latency_mean_ms)}{mark} ({error} %)")
    yield _number(over.images_per_s)


def _number(value: float | None) -> Cell:
    return NOT_MEASURED if value is None else Cell(text.significant(value))
