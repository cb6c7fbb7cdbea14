"""The per-class table against counts small enough to divide by hand."""

import numpy as np

from spar_bench.accuracy import Counts
from spar_bench.session.per_class import per_class_csv
from tests.report.synthetic import InMemory
from tests.track.conftest import make_row

CLASSES = {make_row().classes: ["sky", "sea"]}


def test_iou_of_each_class_is_correct_over_union() -> None:
    counts = Counts(
        correct=np.array([[3, 1], [5, 0]]),
        predicted=np.array([[4, 2], [6, 1]]),
        true=np.array([[3, 2], [5, 1]]),
    )

    table = per_class_csv([make_row()], InMemory({"teacher28": counts}), CLASSES)

    # sky: 8 correct, 10 predicted, 8 true; sea: 1 correct, 3 predicted, 3 true.
    assert table == (
        "trial,method,dataset,eval_short_side_px,class,iou,n_pixels\n"
        "stride_px=28-s0,teacher,patchwork,256,sky,0.800000,8\n"
        "stride_px=28-s0,teacher,patchwork,256,sea,0.200000,3\n"
    )


def test_row_that_was_not_evaluated_has_no_lines() -> None:
    row = make_row(stages={}, status="blocked")

    assert per_class_csv([row], InMemory(), CLASSES).count("\n") == 1
