"""The per-class table against counts small enough to divide by hand."""

from spar_bench.track import per_class_csv
from tests.track.conftest import make_results, make_row


def test_iou_of_each_class_is_correct_over_union() -> None:
    row = make_row()
    results = make_results([row])

    table = per_class_csv([row], results.counts, results.classes)

    # sky: 8 correct, 10 predicted, 8 true; sea: 1 correct, 3 predicted, 3 true.
    assert table == (
        "trial,method,dataset,eval_short_side_px,class,iou,n_pixels\n"
        "stride_px=28-s0,teacher,patchwork,256,sky,0.800000,8\n"
        "stride_px=28-s0,teacher,patchwork,256,sea,0.200000,3\n"
    )


def test_row_that_was_not_evaluated_has_no_lines() -> None:
    row = make_row(stages={}, status="blocked")

    assert per_class_csv([row], {}, {}).count("\n") == 1
