"""What is remarked of a spec that can be run: windows that hold images whole."""

from pathlib import Path

import pytest

from spar_bench.session.remarks import remarks
from spar_bench.spec import read_spec
from tests.run.tiny import write_photographs
from tests.small import UNTIMED, spar_bench, write_spec

EVALUATED = (
    "teacher.window_px: 96 holds every evaluated image whole (at most 72x90 px), so that the "
    "teacher is a single pass at any stride"
)
DISTILLED = EVALUATED.replace("evaluated", "distilled")


def said(window_px: int) -> list[str]:
    """Return the remarks on a teacher and a student that read scenes of 72x90 px at most."""
    text = UNTIMED.replace("window_px: 64", f"window_px: {window_px}")
    return remarks(point.settings for point in read_spec(write_spec(text)).points)


@pytest.mark.usefixtures("here")
def test_window_that_holds_every_image_whole_is_remarked() -> None:
    assert said(96) == [EVALUATED, DISTILLED]
    assert said(80) == []  # higher than the images, but not as wide


def test_check_and_plan_show_remarks_in_a_line_each(here: Path) -> None:
    spec = write_spec(UNTIMED.replace("window_px: 64", "window_px: 96"))

    assert spar_bench("check", spec).stdout.splitlines()[1:] == [f"  {EVALUATED}", f"  {DISTILLED}"]
    assert {EVALUATED, DISTILLED} <= set(spar_bench("plan", spec).stdout.splitlines())


def test_check_lists_images_none_of_which_can_be_read_with_what_is_missing(here: Path) -> None:
    folder = write_photographs(here / "noise")
    for index in range(3):
        (folder / "train_images" / f"{index}.png").write_bytes(b"")
    source = "source: {path: noise}"

    found = spar_bench("check", write_spec(UNTIMED.replace("source: patchwork", source)))

    assert found.stdout.splitlines()[0].endswith("1 missing:")
    assert "must be an image, but is an empty file" in found.stdout
