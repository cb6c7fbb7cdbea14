"""How rows are put together from what the store has."""

import pytest

from spar_bench.session.collect import clipped
from spar_bench.session.run_records import flat


@pytest.mark.parametrize(
    ("window_px", "image_hw", "remark"),
    [
        (None, (48, 64), ""),
        (48, (48, 64), ""),
        (64, (48, 96), "the window of 64 px is clipped to the image of 48x96 px"),
        (64, (96, 48), "the window of 64 px is clipped to the image of 96x48 px"),
    ],
)
def test_window_that_exceeds_an_image_is_remarked_on(
    window_px: int | None, image_hw: tuple[int, int], remark: str
) -> None:
    assert clipped(window_px, image_hw) == remark


def test_nested_settings_lie_flat_under_dotted_keys() -> None:
    settings = {"teacher": {"stride_px": 12}, "evaluate": {"short_side_px": [256]}, "seed": 0}

    assert flat(settings) == {
        "teacher.stride_px": 12,
        "evaluate.short_side_px": [256],
        "seed": 0,
    }
