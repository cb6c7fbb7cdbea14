"""The numbers that the paper published, as data in our own words: `spar.csv`, one a line.

They were read from the figures of the project page of SPAR (arXiv 2604.02252), some off a curve;
what each may be wrong by is stated with it. Nothing here is our own result.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from spar_bench.errors import UnknownName
from spar_bench.values import Method

MEAN, TIMED_IMAGE = "mean6", "image_2048x1024"
"""What stands in place of a data set: the mean over six, and one image that was timed."""
TIMED_HW = (1024, 2048)
_FILE = Path(__file__).with_name("spar.csv")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published number.

    Attributes:
        table: The paper's table or figure: `main_table`, `stride_figure`, `resolution_figure`.
        backbone: The name of its data file.
        method: As in a spec; so are `inference` and `refiner`.
        stride_px: Of the windows; of a student, its teacher's.
        trainable: What a student trains, as in a spec.
        images: What a student is distilled on: the first 25,000 images of SA-1B, or the same over
            an extended range of scales.
        dataset: A data set's name; or `mean6`, the mean over the six of the main table; or
            `image_2048x1024`, one image of that width and height.
        effective_px: The side of the square with as many pixels as an image, where it varies.
        quantity: What is counted, with its unit.
        value: The number.
        reading_tolerance: Half the width of the interval that it was read to.
        source: Where it was read.
    """

    table: str
    backbone: str
    method: Method
    inference: Literal["single_pass", "sliding_window"]
    stride_px: int | None
    refiner: str
    trainable: str | None
    images: Literal["sa1b_25k", "sa1b_25k_extended"] | None
    dataset: str
    effective_px: int | None
    quantity: Literal["miou_percent", "seconds", "windows"]
    value: float
    reading_tolerance: float
    source: str


def tables() -> list[str]:
    """Return the names of the paper's tables and figures that numbers are known of."""
    return list(dict.fromkeys(one.table for one in _all()))


def published(table: str) -> list[Published]:
    """Return the numbers of a table or figure, row by row.

    Raises:
        UnknownName: no number of such a table is known.
    """
    if table not in tables():
        raise UnknownName.among("published table", table, tables())
    return [one for one in _all() if one.table == table]


@cache
def _all() -> tuple[Published, ...]:
    line = TypeAdapter(Published)
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(
            line.validate_python({key: text or None for key, text in cells.items()})
            for cells in csv.DictReader(file)
        )
