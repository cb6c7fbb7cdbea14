"""Remarks on a spec that can be run: whole images in a window, numbers of images."""

from pathlib import Path

import pytest

from spar_bench.conflicts import read_spec
from spar_bench.machines import mkl_lacks_avx512, multiplies_16_bits
from spar_bench.resolve import Resolver
from spar_bench.session.readiness import remarks
from spar_bench.spec.schema import Settings
from tests.datasets.trees import make
from tests.run.tiny import write_photographs
from tests.small import TINY, UNTIMED, spar_bench, write_spec

EVALUATED = (
    "teacher.window_px: 96 holds every evaluated image whole (at most 72x90 px), so that the "
    "teacher is a single pass at any stride"
)
DISTILLED = EVALUATED.replace("evaluated", "distilled")


def said(window_px: int) -> list[str]:
    """Return the remarks on a teacher and a student that read scenes of 72x90 px at most."""
    text = UNTIMED.replace("window_px: 64", f"window_px: {window_px}")
    return remarks((point.settings for point in read_spec(write_spec(text)).points), Resolver())


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


def of(text: str) -> list[str]:
    return remarks((point.settings for point in read_spec(write_spec(text)).points), Resolver())


def test_more_images_than_the_source_has_are_remarked(here: Path) -> None:
    write_photographs(here / "noise")  # three to distil on
    source = UNTIMED.replace("source: patchwork", "source: {path: noise}")

    found = {count: of(source.replace("count: 2", f"count: {count}", 1)) for count in (3, 4)}

    assert found == {
        3: [],
        4: [
            "images.count: 4 is more than the 3 images of folder, so that some are drawn several "
            "times"
        ],
    }


@pytest.mark.usefixtures("here")
def test_scenes_that_are_drawn_again_are_not_remarked() -> None:
    assert of(UNTIMED.replace("count: 2", "count: 1001", 1)) == []


def test_images_that_nothing_distils_on_are_not_remarked(here: Path) -> None:
    write_photographs(here / "noise")
    text = UNTIMED.replace("{source: patchwork, count: 2", "{source: {path: noise}, count: 4")

    assert of(text.replace("evaluate:", "evaluate:\n  methods: [pretrained]")) == []


@pytest.mark.parametrize(("count", "n_said"), [("", 1), (", count: 4", 0)])
def test_other_number_of_images_than_published_is_remarked(
    here: Path, count: str, n_said: int
) -> None:
    make("voc21", here / "data", n=4)
    text = UNTIMED.replace("{name: patchwork, count: 2}", f"{{name: voc21, label: VOC{count}}}")

    expected = (
        "data set VOC: val has 4 images, but 1449 are published, so that its numbers are not those "
        "of the whole set"
    )
    assert of(text) == [expected] * n_said


def test_source_with_another_number_of_images_than_published_is_remarked(here: Path) -> None:
    make("voc21", here / "data", n=4)

    found = of(UNTIMED.replace("source: patchwork", "source: voc21"))

    assert found == [
        "data set voc21: train has 4 images, but 1464 are published, so that its numbers are not "
        "those of the whole set"
    ]


def test_probe_on_a_part_of_the_published_training_images_is_remarked(here: Path) -> None:
    make("voc21", here / "data", n=4)
    text = UNTIMED.replace("{name: patchwork, count: 2}", "{name: voc21, count: 2}")
    text = text.replace("evaluate:", "evaluate:\n  classifier: {name: linear}")

    assert [line for line in of(text) if line.startswith("data set")] == [
        "data set voc21: train has 4 images, but 1464 are published, so that its numbers are not "
        "those of the whole set"
    ]


def test_sweep_says_what_is_remarked_before_it_starts(here: Path) -> None:
    write_photographs(here / "noise")
    text = TINY.replace("source: patchwork, count: 2", "source: {path: noise}, count: 4")

    found = spar_bench("sweep", write_spec(text))

    said = "images.count: 4 is more than the 3 images of folder, so that some are drawn several"
    assert found.stderr.count(said) == 1


def test_factor_that_moves_no_evaluated_teacher_is_remarked(here: Path) -> None:
    text = UNTIMED.replace("stride_px: 32}", "stride_px: 32, upsample: 4}")
    features = text.replace("evaluate:\n", "evaluate:\n  average: features\n")

    assert [line.partition(":")[0] for line in of(text)] == ["teacher.upsample"]
    assert of(features) == []


def test_what_is_missing_hides_no_remark_that_does_without_it(here: Path) -> None:
    make("voc21", here / "data", n=4)
    text = UNTIMED.replace("backbone: patchwork", "backbone: siglip2-b16-256")
    text = text.replace("{name: patchwork, count: 2}", "voc21, {path: nowhere}")
    text = text.replace("stride_px: 32}", "stride_px: 32, upsample: 4}")
    text = text.replace("window_px: 64", "window_px: 96")

    header, *lines = spar_bench("check", write_spec(text)).stdout.splitlines()

    assert header.endswith(", 2 missing:")
    assert lines[0].startswith("  backbone siglip2-b16-256: its weights must be in ")
    assert lines[1].startswith("  nowhere: must be ")
    assert lines[2] == "  and probably not intended:"
    assert lines[3].startswith("  data set voc21: val has 4 images, but 1449 are published")
    assert lines[4] == f"  {DISTILLED}"  # but not the evaluated ones, some of which are missing
    assert [line.partition(":")[0] for line in lines[5:]] == ["  teacher.upsample"]


def test_windows_are_remarked_though_weights_are_missing(here: Path) -> None:
    text = UNTIMED.replace("backbone: patchwork", "backbone: siglip2-b16-256")

    said = of(text.replace("window_px: 64", "window_px: 96"))

    assert said == [EVALUATED, DISTILLED]


@pytest.mark.parametrize(
    ("flags", "multiplies"),
    [("fpu avx2 fma", False), ("avx512f avx512_bf16", True), ("amx_tile amx_bf16", True)],
)
def test_processor_tells_whether_it_multiplies_16_bits(
    tmp_path: Path, flags: str, multiplies: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: X\nflags\t\t: {flags}\n")

    assert multiplies_16_bits(tmp_path / "cpuinfo") is multiplies
    assert multiplies_16_bits(tmp_path / "none")


@pytest.mark.parametrize(
    ("vendor", "flags", "lacks"),
    [
        ("AuthenticAMD", "avx2 avx512f", True),
        ("AuthenticAMD", "avx2", False),
        ("GenuineIntel", "avx2 avx512f", False),
    ],
)
def test_processor_tells_whether_mkl_leaves_its_avx512_unused(
    tmp_path: Path, vendor: str, flags: str, lacks: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"vendor_id\t: {vendor}\nflags\t\t: {flags}\n")

    assert mkl_lacks_avx512(tmp_path / "cpuinfo") is lacks
    assert not mkl_lacks_avx512(tmp_path / "none")


@pytest.mark.parametrize(("has_gpu", "multiplies"), [(False, False), (True, False), (False, True)])
def test_16_bits_on_a_processor_without_them_are_remarked(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, multiplies: bool
) -> None:
    monkeypatch.setattr("spar_bench.session.readiness.has_gpu", lambda: has_gpu)
    monkeypatch.setattr("spar_bench.session.readiness.multiplies_16_bits", lambda: multiplies)
    settings = Settings.model_validate(
        {"student": {"precision": "bfloat16"}, "evaluate": {"precision": "float16"}}
    )

    found = [line for line in remarks([settings], Resolver()) if "16-bit" in line]

    assert len(found) == (not has_gpu and not multiplies)
    for line in found:
        assert line.startswith("student.precision: bfloat16, evaluate.precision: float16: ")


def test_fresh_images_beyond_their_source_are_remarked() -> None:
    images = {"source": {"name": "patchwork", "count": 100}, "count": 60, "fresh": True}

    few, enough = (
        [
            line
            for line in remarks(
                [Settings.model_validate({"images": images, "student": {"epochs": epochs}})],
                Resolver(),
            )
            if line.startswith("images.fresh")
        ]
        for epochs in (2, 1)
    )

    [line] = few
    assert "60 images in each of 2 epochs are more than the 100 of patchwork" in line
    assert line.endswith("images.source.count draws more scenes")
    assert enough == []


@pytest.mark.parametrize(
    ("n_images", "n_processes", "idle"),
    [(2, 1, None), (2, 2, None), (4, 2, None), (2, 3, "33%"), (2, 4, "50%"), (5, 4, "38%")],
)
def test_processes_without_an_image_in_a_step_are_remarked(
    n_images: int, n_processes: int, idle: str | None
) -> None:
    settings = Settings.model_validate({"student": {"accumulate": n_images}})

    lines = remarks([settings], Resolver(), n_processes)
    found = [line for line in lines if "accumulate" in line]

    assert [line.split(" of their time idle")[0].split()[-1] for line in found] == (
        [idle] if idle else []
    )
    for line in found:
        assert line.startswith(f"student.accumulate: {n_images} images a step on {n_processes} ")
