"""A user's own folder: what is found in it, and the messages about a wrong folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from spar_bench.datasets import folder
from spar_bench.datasets.base import Dataset, DatasetSettings, Split, evenly_spaced
from spar_bench.errors import DataError, NotReady
from spar_bench.resolve import Resolver
from spar_bench.spec.schema import DatasetSpec
from spar_bench.testing import DatasetContract

HW = (4, 6)


def write_image(path: Path, *, colour: int = 0, hw: tuple[int, int] = HW, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(np.full((*hw, 3), colour, np.uint8)).save(path, **options)


def write_mask(path: Path, *, label: int = 0, hw: tuple[int, int] = HW) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.full(hw, label, np.uint8)
    mask[0, 0] = 255
    Pillow.fromarray(mask).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder as users make it: two classes, three labelled images, two to distil on."""
    root = tmp_path / "streets"
    for index, name in enumerate(["b", "a", "town/c"]):
        write_image(root / "val_images" / f"{name}.jpg", colour=40 * index)
        write_mask(root / "val_masks" / f"{name}.png", label=index % 2)
    for index, name in enumerate(["y.png", "x.jpg"]):
        write_image(root / "train_images" / name, colour=100 + index)
    (root / "classes.txt").write_text("sky\nroad, street , lane\n")
    return root


def read(split: Split, path: Path | str | None, **settings: Any) -> folder.Dataset:
    return folder.Dataset(split, DatasetSettings(None if path is None else str(path), **settings))


class TestFolder(DatasetContract):
    @pytest.fixture
    def make(self, root: Path) -> Callable[[Split, int | None], Dataset]:
        return lambda split, count: read(split, root, count=count)


def test_labelled_images_are_sorted_by_name_and_matched_by_it(root: Path) -> None:
    dataset = read("val", root)

    samples = [dataset.sample(index) for index in range(len(dataset))]

    names = ["val_images/a.jpg", "val_images/b.jpg", "val_images/town/c.jpg"]
    assert [sample.name for sample in samples] == names
    assert [int(sample.image[0, 0, 0]) for sample in samples] == [40, 0, 80]
    assert [int(sample.mask[1, 1]) for sample in samples] == [1, 0, 0]
    assert dataset.classes == [["sky"], ["road", "street", "lane"]]


def test_distillation_images_need_no_masks_and_no_classes(root: Path) -> None:
    (root / "classes.txt").unlink()

    dataset = read("train", root)

    assert [int(dataset.image(index)[0, 0, 0]) for index in range(len(dataset))] == [101, 100]


def test_images_and_masks_are_the_second_layout(root: Path) -> None:
    for name in ("images", "masks"):
        (root / f"val_{name}").rename(root / name)

    assert len(read("val", root)) == 3


def test_any_folder_of_images_serves_as_source_whatever_else_lies_in_it(tmp_path: Path) -> None:
    write_image(tmp_path / "2025" / "june" / "z.JPEG", colour=1)
    write_image(tmp_path / "a.webp", colour=2, lossless=True)
    (tmp_path / "README.txt").write_text("My holidays.")

    dataset = read("train", tmp_path)

    assert [dataset.image(index)[0, 0, 0] for index in range(len(dataset))] == [1, 2]


def test_hidden_files_and_folders_are_passed_over(root: Path) -> None:
    write_image(root / "val_images" / "._a.jpg")
    write_image(root / "val_images" / ".thumbnails" / "a.jpg")
    (root / "val_images" / ".DS_Store").write_bytes(b"\0")

    assert len(read("val", root)) == 3


def test_declared_size_is_that_of_the_first_image_upright(root: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 8  # a quarter turn
    write_image(root / "val_images" / "a.jpg", hw=(6, 4), exif=exif)

    assert read("val", root).image_hw == (4, 6)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffsky\r\nroad, street , lane\r\n",
        "# sky and road\n\nsky\n  # indented\nroad,street,,lane,\n\n",
        "sky\nroad,street,lane",
    ],
    ids=["windows", "comments", "no last line end"],
)
def test_class_list_is_read_as_editors_save_it(root: Path, text: str) -> None:
    (root / "classes.txt").write_bytes(text.encode())

    assert read("val", root).classes == [["sky"], ["road", "street", "lane"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "1 to 255 classes, but names 0"),
        (b"sky\n,\n", "line 2: must name a class, but got ','"),
        (b"sky\nroad\n# again\nlane, sky\n", "line 4: 'sky' must name one class, but line 1"),
        (b"\xff\xfes\x00k\x00", "UTF-8"),
        ("\n".join(f"class {index}" for index in range(256)).encode(), "but names 256"),
    ],
)
def test_class_list_that_makes_no_sense_is_refused(root: Path, content: bytes, said: str) -> None:
    (root / "classes.txt").write_bytes(content)

    with pytest.raises(DataError, match=said) as caught:
        read("val", root)

    assert str(caught.value).startswith(str(root / "classes.txt"))


def test_class_names_of_the_spec_take_the_place_of_the_list(root: Path) -> None:
    (root / "classes.txt").unlink()

    assert read("val", root, classes=[["heaven"], ["road"]]).classes == [["heaven"], ["road"]]


def test_more_classes_of_the_spec_than_labels_can_tell_apart_are_refused(root: Path) -> None:
    spec = DatasetSpec(path=str(root), classes=[[f"class {index}"] for index in range(300)])

    with pytest.raises(DataError, match=r"must have at most 255 classes, .* but has 300"):
        Resolver().dataset(spec)


def spoil(root: Path, how: str) -> None:
    """Spoil a good folder as users do."""
    if how == "no classes":
        (root / "classes.txt").unlink()
    elif how == "no masks":
        (root / "val_masks").rename(root / "labels")
    elif how == "mask missing":
        (root / "val_masks" / "b.png").unlink()
    elif how == "image missing":
        (root / "val_images" / "b.jpg").unlink()
    elif how == "empty folder":
        for path in (root / "val_masks").rglob("*.png"):
            path.unlink()
    elif how == "unknown ending":
        (root / "val_images" / "b.jpg").rename(root / "val_images" / "b.heic")
    elif how == "mask not png":
        write_image(root / "val_masks" / "b.jpg")
    elif how == "same name twice":
        write_image(root / "val_images" / "b.png")


@pytest.mark.parametrize(
    ("how", "error", "place", "said"),
    [
        ("no classes", NotReady, "classes.txt", "one per line"),
        ("no masks", NotReady, "", "val_images/ and val_masks/"),
        ("mask missing", NotReady, "val_images/b.jpg", "partner of the same name"),
        ("image missing", NotReady, "val_masks/b.png", "partner of the same name"),
        ("empty folder", NotReady, "val_masks", "must hold a file, but has none that ends in .png"),
        ("unknown ending", DataError, "val_images/b.heic", "ends in '.heic'"),
        ("mask not png", DataError, "val_masks/b.jpg", "must end in .png"),
        ("same name twice", DataError, "val_images/b.png", "b.jpg has the same"),
    ],
)
def test_folder_that_is_not_right_is_refused_before_an_image_is_read(
    root: Path, how: str, error: type[Exception], place: str, said: str
) -> None:
    spoil(root, how)

    with pytest.raises(error, match=said) as caught:
        read("val", root)

    assert str(caught.value).startswith(f"{root / place}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["val_masks", "train_masks", "masks"])
def test_masks_are_not_taken_for_photographs_to_distil_on(tmp_path: Path, name: str) -> None:
    write_mask(tmp_path / name / "a.png")
    write_image(tmp_path / "photos" / "a.jpg")

    with pytest.raises(NotReady, match=f"must have train_images/ to distil on, but has {name}/"):
        read("train", tmp_path)


def test_number_of_images_without_masks_is_told(root: Path) -> None:
    for name in ("a", "b"):
        (root / "val_masks" / f"{name}.png").unlink()

    with pytest.raises(NotReady, match=r"a\.jpg: .* \(and 1 more; `spar-bench datasets"):
        read("val", root)


def test_mask_of_another_size_is_refused(root: Path) -> None:
    write_mask(root / "val_masks" / "a.png", hw=(6, 4))

    with pytest.raises(DataError, match=r"a\.png: .*6 px wide, 4 px high.*4 px wide, 6 px high"):
        read("val", root).sample(0)


def test_label_without_a_class_is_refused(root: Path) -> None:
    write_mask(root / "val_masks" / "a.png", label=2)

    with pytest.raises(DataError, match=r"a\.png: .*must hold only 0 to 1 and 255, but has 2"):
        read("val", root).sample(0)


def test_mask_without_any_label_is_read(root: Path) -> None:
    write_mask(root / "val_masks" / "a.png", label=255)

    assert (read("val", root).sample(0).mask == 255).all()


@pytest.mark.parametrize("split", ["train", "val"])
def test_path_that_is_no_folder_is_refused(root: Path, split: Split) -> None:
    for path, said in [
        (None, "is not given"),
        (root / "nowhere", "does not exist"),
        (root / "classes.txt", "is a file"),
    ]:
        with pytest.raises(NotReady, match=said):
            read(split, path)


def test_labelled_folder_is_not_taken_for_photographs(root: Path) -> None:
    (root / "train_images").rename(root / "other")

    with pytest.raises(
        NotReady, match="must have train_images/ to distil on, but has val_images/ instead"
    ):
        read("train", root)


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing yet")

    with pytest.raises(NotReady, match="has none that ends in"):
        read("train", tmp_path)


def test_identity_follows_the_contents_and_not_the_place(root: Path, tmp_path: Path) -> None:
    before = read("val", root).identity()

    moved = root.rename(tmp_path / "elsewhere")

    assert read("val", moved).identity() == before


@pytest.mark.parametrize("change", ["image", "mask", "name", "class", "count"])
def test_identity_changes_with_whatever_is_used(root: Path, change: str) -> None:
    before = read("val", root).identity()
    if change == "image":
        write_image(root / "val_images" / "a.jpg", colour=41)
    elif change == "mask":
        write_mask(root / "val_masks" / "a.png", label=0)
    elif change == "name":
        for name in ("images/a.jpg", "masks/a.png"):
            path = root / f"val_{name}"
            path.rename(path.with_stem("aa"))
    elif change == "class":
        (root / "classes.txt").write_text("sky\nroad\n")

    after = read("val", root, count=2 if change == "count" else None).identity()

    assert after != before


def test_identity_leaves_out_what_is_not_used(root: Path) -> None:
    before = read("val", root, count=2).identity(), read("train", root).identity()

    write_image(root / "val_images" / "town" / "c.jpg", colour=9)
    (root / "classes.txt").write_text("sky\nroad, street , lane\n# note\n")

    assert (read("val", root, count=2).identity(), read("train", root).identity()) == before


@pytest.mark.parametrize(
    ("n_listed", "count", "taken"),
    [
        (120, 12, list(range(0, 120, 10))),
        (7, 3, [0, 2, 4]),  # floor of 0, 7/3, 14/3
        (5, 4, [0, 1, 2, 3]),  # floor of 0, 5/4, 10/4, 15/4
        (3, 3, [0, 1, 2]),
        (3, 9, [0, 1, 2]),
        (3, None, [0, 1, 2]),
    ],
)
def test_a_count_takes_evenly_spaced_images(
    n_listed: int, count: int | None, taken: list[int]
) -> None:
    assert list(evenly_spaced(range(n_listed), count)) == taken


def test_images_of_a_count_are_evenly_spaced_by_name_and_their_number_is_kept(root: Path) -> None:
    for name in "defghi":
        write_image(root / "val_images" / f"{name}.jpg")
        write_mask(root / "val_masks" / f"{name}.png")

    dataset = read("val", root, count=3)

    names = [dataset.sample(i).name for i in range(len(dataset))]
    assert names == ["val_images/a.jpg", "val_images/e.jpg", "val_images/h.jpg"]
    assert dataset.n_listed == 9


def test_another_part_of_the_same_number_has_another_identity(root: Path) -> None:
    before = read("val", root, count=2).identity()
    write_image(root / "val_images" / "0.jpg")
    write_mask(root / "val_masks" / "0.png")

    assert read("val", root, count=2).identity() != before


def test_home_folder_is_written_as_a_tilde(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))

    assert len(read("val", os.path.join("~", root.name))) == 3


@pytest.mark.parametrize("name", ["val_images/b.jpg", "val_masks/b.png"])
def test_link_to_nothing_is_named_as_a_file_that_cannot_be_opened(root: Path, name: str) -> None:
    (root / name).unlink()
    (root / name).symlink_to(root / "moved")

    with pytest.raises(DataError, match=rf"{name}: must be a file that can be opened, but is not"):
        read("val", root)


def test_file_that_is_lost_after_it_was_listed_is_named(root: Path) -> None:
    dataset = read("val", root)
    (root / "val_masks" / "b.png").unlink()

    with pytest.raises(DataError, match=r"val_masks/b\.png: must be a file that can be opened"):
        dataset.identity()


def test_training_images_are_paired_with_their_masks_where_labels_are_asked_for(
    root: Path,
) -> None:
    for index, stem in enumerate(["y", "x"]):
        write_mask(root / "train_masks" / f"{stem}.png", label=index)

    plain, labelled = read("train", root), read("train", root, labelled=True)

    assert [labelled.sample(index).name for index in range(2)] == [
        "train_images/x.jpg",
        "train_images/y.png",
    ]
    assert [int(labelled.sample(index).mask[1, 1]) for index in range(2)] == [1, 0]
    assert labelled.classes == [["sky"], ["road", "street", "lane"]]
    assert plain.identity()["count"] == 2
    assert plain.identity() != labelled.identity()


@pytest.mark.parametrize(
    ("images", "lack"), [(True, "no train_masks/"), (False, "no train_images/ and no train_masks/")]
)
def test_training_images_without_masks_are_told_in_one_line(
    root: Path, images: bool, lack: str
) -> None:
    if not images:
        (root / "train_images").rename(root / "elsewhere")

    with pytest.raises(NotReady) as told:
        read("train", root, labelled=True, name="folder")

    assert str(told.value) == (
        "evaluate.classifier: a linear probe must have labelled training images, but data set "
        f"folder has {lack} in {root}; add what lacks, or use text"
    )


def test_training_image_without_its_mask_is_told(root: Path) -> None:
    write_mask(root / "train_masks" / "x.png")

    with pytest.raises(
        NotReady, match=r"train_images/y\.png: must have a partner of the same name"
    ):
        read("train", root, labelled=True)
