"""The commands about data sets: what they list, show and find wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from spar_bench import registry
from tests.cli.test_completion import completed
from tests.datasets.trees import (  # fmt: skip
    LABELLED,
    blocks,
    make,
    make_ade20k,
    make_voc,
    write_grey,
    write_list,
    write_palette,
    write_photograph,
)
from tests.run.probes import write_labelled
from tests.run.tiny import write_photographs
from tests.small import one_line, printed, spar_bench, write_spec

HW = (24, 36)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPAR_BENCH_DATA", raising=False)


def small(name: str, n: int = 4) -> str:
    """Write a data file as a user would, for a data set of `n` images; returns its path."""
    text = spar_bench("datasets", "show", name).stdout
    lines = [f"    n_images: {n}" if "n_images:" in line else line for line in text.splitlines()]
    path = Path(f"{name}_small.yaml")
    path.write_text("\n".join(lines))
    return str(path)


def lines(*arguments: str) -> list[str]:
    """Return what a failing check prints: its lines, then its one line of summary."""
    result = spar_bench("datasets", "check", *arguments, exits=2)
    return [*result.stdout.splitlines(), one_line(result)]


def test_list_tells_classes_place_licence_and_source() -> None:
    make("cityscapes", Path("data"))

    said = [" ".join(line.split()) for line in spar_bench("datasets").stdout.splitlines()]

    assert said[0] == "data set classes found licence"
    assert "voc21 21 no Flickr terms of use" in said
    assert "voc21: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/" in said
    assert "cityscapes 19 yes non-commercial, own terms" in said
    assert "cityscapes: data/cityscapes" in said
    assert "patchwork see below" in said
    assert any(line.startswith("patchwork: Procedural scenes") for line in said)


@pytest.mark.parametrize("name", [*LABELLED, "sa1b"])
def test_data_file_is_shown_as_it_is(name: str) -> None:
    path = registry.data_file("datasets", name)
    assert path is not None

    said = spar_bench("datasets", "show", name).stdout

    assert said == path.read_text()
    assert YAML(typ="safe").load(said)["plugin"] == "tree"


def test_data_set_without_a_data_file_is_explained_in_comments() -> None:
    said = spar_bench("datasets", "show", "folder").stdout

    assert "#     <path>/classes.txt     one class per line" in said
    assert all(line.startswith("#") for line in said.splitlines())


@pytest.mark.parametrize("command", ["show", "check"])
def test_unknown_data_set_is_answered_with_the_nearest(command: str) -> None:
    assert "did you mean 'ade20k'?" in one_line(spar_bench("datasets", command, "ade2k", exits=2))


def test_names_are_completed() -> None:
    Path("my").mkdir()
    Path("my/voc.yaml").touch()

    assert completed("datasets", "check", "voc") == ["voc20", "voc21"]
    assert completed("datasets", "show", "my/") == ["my/voc.yaml"]


@pytest.mark.parametrize("name", LABELLED)
def test_whole_data_set_is_found_right(name: str) -> None:
    root, mine = make(name, Path("sets")), small(name)

    val = spar_bench("datasets", "check", mine, "--path", "sets", "--all").stdout
    train = spar_bench("datasets", "check", mine, "--path", "sets", "--split", "train").stdout

    assert val == f"{mine} val: 4 labelled images in {root}, 4 opened, nothing wrong\n"
    assert train == f"{mine} train: 4 labelled images in {root}, 4 opened, nothing wrong\n"


def test_data_set_without_val_is_checked_as_source() -> None:
    root = make("sa1b", Path("data"))

    said = spar_bench("datasets", "check", "sa1b").stdout

    assert said == f"sa1b train: 4 images in {root}, 4 opened, nothing wrong\n"


def test_number_of_images_other_than_published_is_wrong() -> None:
    make_ade20k(Path("data"))

    said = lines("ade20k")

    assert said == [
        "data set ade20k: val must have 2000 images, as published, but 4 can be used; complete it, "
        "or correct n_images in its data file",
        "ade20k val: 4 labelled images in data/ADEChallengeData2016, 4 opened, 1 problem",
    ]


def spoil(root: Path, how: str) -> Path:
    """Damage an image of a good VOC as disks and converters do; return the file to be named."""
    mask = root / "SegmentationClass" / "2008_000001.png"
    image = root / "JPEGImages" / "2008_000001.jpg"
    if how == "truncated image":
        image.write_bytes(image.read_bytes()[:-300])
        return image
    if how == "empty mask file":
        mask.write_bytes(b"")
    elif how == "mask of another size":
        write_palette(mask, blocks(HW, range(21), seed=0))
    elif how == "label out of range":
        write_palette(mask, np.full((HW[0] + 2, HW[1]), 77, np.uint8))
    elif how == "mask in colour":
        write_photograph(mask, (HW[0] + 2, HW[1]), seed=0)
    elif how == "mask missing":
        mask.unlink()
    elif how == "image missing":
        image.unlink()
        return image
    return mask


SPOILT = {
    "truncated image": "truncated",
    "empty mask file": "is an empty file",
    "mask of another size": "must have the size of its image (36 px wide, 26 px high)",
    "label out of range": "must hold only 0 to 20 and 255, but has 77 in 936 px",
    "mask in colour": "must hold one class index per pixel, but has mode RGB",
    "mask missing": "must exist as the mask of 2008_000001.jpg",
    "image missing": "must exist, for ImageSets/Segmentation/val.txt lists it",
}


@pytest.mark.parametrize("how", SPOILT)
def test_file_that_is_wrong_is_named_with_what_is_wrong(how: str) -> None:
    path = spoil(make_voc(Path("data")), how)

    first, *_, last = lines(small("voc21"), "--all")

    assert first.startswith(f"{path}: ")
    assert SPOILT[how] in first
    gone = "missing" in how  # then there is also one image less than published
    assert last.endswith(", 3 opened, 2 problems" if gone else ", 4 opened, 1 problem")


def test_check_goes_on_after_the_first_wrong_file() -> None:
    root = make_voc(Path("data"), n=7)
    (root / "JPEGImages" / "2008_000000.jpg").write_bytes(b"")
    (root / "SegmentationClass" / "2008_000003.png").unlink()
    write_grey(root / "SegmentationClass" / "2008_000006.png", np.full((36, 36), 99, np.uint8))

    *said, summary = lines(small("voc21", 7), "--all")

    named = [[line.split(":")[0].split("/")[-1] for line in said].count(name) for name in
             ("2008_000000.jpg", "2008_000003.png", "2008_000006.png")]  # fmt: skip
    assert named == [1, 1, 1]
    assert summary.endswith("6 labelled images in data/VOCdevkit/VOC2012, 6 opened, 4 problems")


def test_many_wrong_files_are_counted_beyond_the_first_twenty() -> None:
    root = make_voc(Path("data"), n=30)
    for path in (root / "SegmentationClass").iterdir():
        path.write_bytes(b"")

    *said, summary = lines(small("voc21", 30))

    assert len(said) == 21
    assert said[-1] == "... and 10 more"
    assert summary.endswith("30 opened, 30 problems")


def test_sample_is_spread_over_the_images_and_all_are_opened_on_request() -> None:
    root = make_voc(Path("data"), n=70)
    (root / "JPEGImages" / "2008_000069.jpg").write_bytes(b"")
    (root / "JPEGImages" / "2008_000001.jpg").write_bytes(b"")
    mine = small("voc21", 70)

    sample, every = lines(mine), lines(mine, "--all")

    assert [len(sample), len(every)] == [2, 3]
    assert "2008_000069.jpg" in sample[0]
    assert ", 32 opened, 1 problem" in sample[-1]
    assert ", 70 opened, 2 problems" in every[-1]


def test_mask_and_image_without_the_other_are_both_told() -> None:
    root = make_ade20k(Path("data"))
    (root / "images" / "validation" / "ADE_val_00000001.jpg").unlink()
    (root / "annotations" / "validation" / "ADE_val_00000004.png").unlink()

    said = lines(small("ade20k"))

    assert said[0].startswith(f"{root}/annotations/validation/ADE_val_00000004.png: must exist")
    assert said[1].startswith(f"{root}/images/validation/ADE_val_00000001.jpg: must exist")
    assert said[2].endswith("4 images, as published, but 2 can be used; complete it, or correct "
                            "n_images in its data file")  # fmt: skip


def test_name_listed_twice_is_told() -> None:
    root = make_voc(Path("data"))
    names = ["2008_000000", "2008_000001", "2008_000000"]
    write_list(root / "ImageSets" / "Segmentation" / "val.txt", names)

    said = lines(small("voc21", 2))

    assert "must list each image once, but has '2008_000000' 2 times" in said[0]


def remove_masks(root: Path) -> None:
    for name in ("0", "2"):
        (root / "val_masks" / f"{name}.png").unlink()


def add_odd_files(root: Path) -> None:
    (root / "val_images" / "notes.txt").write_text("of mine")
    (root / "val_masks" / "0.png").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (remove_masks, ["0.png: must have a partner", "2.png: must have a partner",
                        "1 labelled image in streets, 1 opened, 2 problems"]),
        (add_odd_files, ["notes.txt: must end in", "0.png: must be an image, but is an empty file",
                         "3 labelled images in streets, 3 opened, 2 problems"]),
    ],
)  # fmt: skip
def test_folder_of_ones_own_is_checked_alike(
    spoil: Callable[[Path], None], said: list[str]
) -> None:
    root = write_photographs(Path("streets"))
    good = spar_bench("datasets", "check", "folder", "--path", "streets").stdout
    spoil(root)

    found = lines("folder", "--path", "streets")

    assert good == "folder val: 3 labelled images in streets, 3 opened, nothing wrong\n"
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


def test_masks_of_training_images_are_checked_where_there_are_some() -> None:
    root = write_labelled(Path("streets"))
    options = ("folder", "--path", "streets", "--split", "train")
    good = spar_bench("datasets", "check", *options).stdout
    mask = root / "train_masks" / "1.png"
    Image.fromarray(np.full((46, 70), 9, np.uint8)).save(mask)

    found = lines(*options)

    assert good == "folder train: 3 labelled images in streets, 3 opened, nothing wrong\n"
    assert "train_masks/1.png: a mask must hold only" in found[0]
    (root / "classes.txt").unlink()
    shutil.rmtree(root / "train_masks")
    bare = spar_bench("datasets", "check", *options).stdout
    assert bare == "folder train: 3 images in streets, 3 opened, nothing wrong\n"


def test_scenes_that_need_no_file_are_checked_too() -> None:
    said = spar_bench("datasets", "check", "patchwork").stdout

    assert said == "patchwork val: 48 labelled images, 32 opened, nothing wrong\n"


SPEC = """\
backbone: patchwork
images: {source: sa1b, count: 4}
evaluate: {datasets: [{name: voc21, count: 4}, mine/streets.yaml]}
"""


def test_spec_is_ready_once_its_data_sets_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine").mkdir()
    Path(small("cityscapes")).rename("mine/streets.yaml")
    spec = write_spec(SPEC)

    lacking = spar_bench("check", spec, "--ready", exits=2).stdout.splitlines()
    for name in ("voc21", "cityscapes", "sa1b"):
        make(name, Path("sets"))
    monkeypatch.setenv("SPAR_BENCH_DATA", "sets")
    ready = spar_bench("check", spec, "--ready").stdout

    assert lacking[0].endswith("is valid, 1 trial, 3 missing:")
    missing = [line.split(":")[0].strip() for line in lacking[1:]]
    assert missing == ["data set sa1b", "data set voc21", "data set mine/streets.yaml"]
    assert ready == f"{spec}: is valid, 1 trial\n"


def test_plan_of_published_data_sets_loads_no_torch() -> None:
    for name in ("voc21", "sa1b"):
        make(name, Path("data"))
    spec = write_spec(SPEC.replace(", mine/streets.yaml", ""))
    code = (
        "import sys; from spar_bench.cli import main\n"
        f"main(['plan', {spec!r}], standalone_mode=False)\n"
        "print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    )

    found = printed(code)

    assert "1 trial" in found
    assert found.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["voc21"], "data set voc21: JPEGImages/ must be in VOCdevkit/VOC2012 or"),
        (["folder"], "data set folder: path must name a folder, but is not given"),
        (["folder", "--path", "nowhere"], "nowhere: must be a folder of images"),
        (["mine.yaml"], "mine.yaml: a data file must exist, but does not"),
        (["sa1b", "--split", "val"], "data set sa1b: must have data to evaluate on"),
    ],
)
def test_nothing_to_look_at_is_one_line(arguments: list[str], said: str) -> None:
    assert one_line(spar_bench("datasets", "check", *arguments, exits=2)).startswith(said)
