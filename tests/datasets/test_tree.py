"""The published data sets on miniature trees: which files are read, and what their labels mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Cityscapes, VOCSegmentation

from spar_bench import datasets, registry
from spar_bench.datasets.base import Dataset, Split
from spar_bench.errors import DataError, NotReady
from spar_bench.plan.inputs import dataset_identity, open_dataset
from spar_bench.spec.schema import DatasetSpec, SourceSpec
from spar_bench.testing import DatasetContract
from tests.datasets import trees
from tests.datasets.trees import LABELLED, MAKERS, make, write_grey, write_list, write_palette


def read(split: Split, name: str, path: Path, **settings: Any) -> Dataset:
    return open_dataset(DatasetSpec(name=name, path=str(path), **settings), split)


def edited(name: str, path: Path, old: str, new: str) -> Path:
    """Write a data set's data file with a change, as a user would."""
    stated = registry.data_file("datasets", name)
    assert stated is not None
    text = stated.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize("name", LABELLED)
class TestTree(DatasetContract):
    @pytest.fixture
    def make(self, name: str, tmp_path: Path) -> Callable[[Split, int | None], Dataset]:
        root = make(name, tmp_path)
        return lambda split, count: read(split, name, root, count=count)


@pytest.mark.parametrize(
    ("name", "mask", "stored", "labels"),
    [
        ("voc21", "SegmentationClass/2008_000000.png", [[0, 1, 20], [255, 0, 2]],
         [[0, 1, 20], [255, 0, 2]]),
        ("voc20", "SegmentationClass/2008_000000.png", [[0, 1, 20], [255, 0, 2]],
         [[255, 0, 19], [255, 255, 1]]),
        ("context60", "SegmentationClassContext/2009_000000.png", [[0, 1, 59], [30, 0, 2]],
         [[0, 1, 59], [30, 0, 2]]),
        ("context59", "SegmentationClassContext/2009_000000.png", [[0, 1, 59], [30, 0, 2]],
         [[255, 0, 58], [29, 255, 1]]),
        ("ade20k", "annotations/validation/ADE_val_00000001.png", [[0, 1, 150], [30, 0, 2]],
         [[255, 0, 149], [29, 255, 1]]),
        ("cityscapes", "gtFine/val/frankfurt/frankfurt_000000_000000_gtFine_labelIds.png",
         [[0, 7, 33], [4, 29, 11]], [[255, 0, 18], [255, 255, 2]]),
    ],
)  # fmt: skip
def test_stored_values_mean_the_labels_that_are_published(
    tmp_path: Path, name: str, mask: str, stored: list[list[int]], labels: list[list[int]]
) -> None:
    root = make(name, tmp_path, n=1, hw=(2, 3))
    write = write_palette if name.startswith("voc") else write_grey
    write(root / mask, np.array(stored, np.uint8))

    sample = read("val", name, root).sample(0)

    assert sample.mask.tolist() == labels


def test_every_raw_id_of_cityscapes_has_its_train_id(tmp_path: Path) -> None:
    root = make("cityscapes", tmp_path, n=1, hw=(2, 17))
    ids = np.arange(34, dtype=np.uint8).reshape(2, 17)
    write_grey(root / "gtFine/val/frankfurt/frankfurt_000000_000000_gtFine_labelIds.png", ids)

    sample = read("val", "cityscapes", root).sample(0)

    assert sample.mask.ravel().tolist() == trees.CITYSCAPES_TRAIN_IDS


def test_prepared_train_ids_serve_where_raw_ids_are_missing(tmp_path: Path) -> None:
    root = make("cityscapes", tmp_path, n=2)
    before = read("val", "cityscapes", root)
    expected = [before.sample(index).mask for index in range(2)]
    for path in (root / "gtFine" / "val").rglob("*_labelIds.png"):
        raw = np.asarray(Image.open(path))
        prepared = np.array(trees.CITYSCAPES_TRAIN_IDS, np.uint8)[raw]
        write_grey(path.with_name(path.name.replace("labelIds", "labelTrainIds")), prepared)
        path.unlink()

    after = read("val", "cityscapes", root)

    assert [np.array_equal(after.sample(i).mask, expected[i]) for i in range(2)] == [True, True]


def test_voc_is_what_torchvision_reads(tmp_path: Path) -> None:
    root = make("voc21", tmp_path)
    theirs = VOCSegmentation(str(tmp_path), year="2012", image_set="val")

    ours = read("val", "voc21", root)

    assert len(ours) == len(theirs) == 4
    for index, (image, mask) in enumerate(theirs):
        assert np.array_equal(ours.sample(index).image, np.asarray(image))
        assert np.array_equal(ours.sample(index).mask, np.asarray(mask))
    trained = VOCSegmentation(str(tmp_path), year="2012", image_set="train").images
    for index, path in enumerate(trained):
        found = read("train", "voc21", root).image(index)
        assert np.array_equal(found, np.asarray(Image.open(path)))


def test_cityscapes_is_what_torchvision_reads(tmp_path: Path) -> None:
    root = make("cityscapes", tmp_path)
    theirs = Cityscapes(str(root), split="val", mode="fine", target_type="semantic")
    by_name = {Path(path).relative_to(root).as_posix(): i for i, path in enumerate(theirs.images)}
    train_ids = np.array([c.train_id for c in Cityscapes.classes if c.id >= 0], np.uint8)

    ours = read("val", "cityscapes", root)

    assert len(ours) == len(theirs) == 4
    for index in range(4):
        sample = ours.sample(index)
        image, mask = theirs[by_name[sample.name]]
        assert np.array_equal(sample.image, np.asarray(image))
        assert np.array_equal(sample.mask, train_ids[np.asarray(mask)])
    assert [ours.sample(index).name for index in range(4)] == sorted(by_name)


@pytest.mark.parametrize("name", LABELLED)
def test_val_and_train_are_their_own_files(tmp_path: Path, name: str) -> None:
    root = make(name, tmp_path)

    identities = [read(split, name, root).identity() for split in ("val", "train")]

    assert [identity["count"] for identity in identities] == [4, 4]
    assert identities[0]["sha256"] != identities[1]["sha256"]


def test_list_decides_the_order(tmp_path: Path) -> None:
    root = make("voc21", tmp_path)
    names = ["2008_000003", "2008_000000", "2008_000002"]
    path = root / "ImageSets" / "Segmentation" / "val.txt"
    path.write_bytes(("\ufeff" + "\r\n".join(names) + "\r\n\r\n").encode())

    dataset = read("val", "voc21", root)

    assert [dataset.sample(i).name for i in range(3)] == [f"JPEGImages/{n}.jpg" for n in names]


def source(path: Path, name: str = "sa1b") -> Dataset:
    return open_dataset(SourceSpec(name=name, path=str(path)), "train")


@pytest.mark.parametrize("folders", [False, True])
def test_sa1b_is_its_images_up_to_25000_in_the_order_of_their_ids(
    tmp_path: Path, folders: bool
) -> None:
    root = make("sa1b", tmp_path)
    by_id = {n: np.asarray(Image.open(root / f"sa_{n}.jpg")) for n in (8, 9, 10, 11)}
    if folders:
        for number in (8, 10):
            (root / f"sa_{number:06d}").mkdir()
            (root / f"sa_{number}.jpg").rename(root / f"sa_{number:06d}" / f"sa_{number}.jpg")

    dataset = source(root)

    assert len(dataset) == 4
    for index, pixels in enumerate(by_id.values()):
        assert np.array_equal(dataset.image(index), pixels)
    assert dataset.image_hw == (24, 36)


def test_sa1b_is_files_named_by_sa_and_a_number_alone(tmp_path: Path) -> None:
    root = make("sa1b", tmp_path)
    for other in ("2008_000003", "ADE_train_00000001", "sa_8_copy", "copy_of_sa_9", "sa_", "12"):
        trees.write_photograph(root / f"{other}.jpg", trees.HW, seed=1)

    dataset = source(root)

    expected = [np.asarray(Image.open(root / f"sa_{number}.jpg")) for number in (8, 9, 10, 11)]
    assert len(dataset) == 4
    assert all(np.array_equal(dataset.image(i), pixels) for i, pixels in enumerate(expected))


def test_names_are_taken_up_to_a_number_whatever_comes_before_it(tmp_path: Path) -> None:
    root = make("ade20k", tmp_path, n=4)
    old = 'images: "images/validation/{name}.jpg"'
    mine = edited("ade20k", tmp_path / "mine.yaml", old, f"{old}\n    up_to: 2")

    dataset = read("val", str(mine), root)

    assert [dataset.sample(i).name[-12:] for i in range(len(dataset))] == [
        "00000001.jpg", "00000002.jpg"]  # fmt: skip


@pytest.mark.parametrize("ending", ["JPG", "jpeg", "JPEG"])
def test_image_whose_ending_is_spelt_otherwise_is_told(tmp_path: Path, ending: str) -> None:
    root = make("sa1b", tmp_path)
    path = root / "sa_9.jpg"
    path.rename(path.with_suffix(f".{ending}"))
    (root / "sa_25001.jpg").rename(root / f"sa_25001.{ending}")  # is not wanted anyway

    with pytest.raises(DataError) as caught:
        source(root)

    assert str(caught.value) == (
        f"{path.with_suffix('')}.{ending}: must end in .jpg, as {{name}}.jpg says, but ends in "
        f".{ending}; rename it, or take it away"
    )


def test_labelled_image_or_mask_whose_ending_is_spelt_otherwise_is_told(tmp_path: Path) -> None:
    root = make("cityscapes", tmp_path, n=2)
    frankfurt = "val/frankfurt/frankfurt_000000_000000"
    image = root / "leftImg8bit" / f"{frankfurt}_leftImg8bit.png"
    image.rename(image.with_suffix(".PNG"))

    with pytest.raises(DataError, match=r"leftImg8bit\.PNG: must end in \.png, .* \(and 1 more"):
        read("val", "cityscapes", root)

    image.with_suffix(".PNG").rename(image)
    mask = root / "gtFine" / f"{frankfurt}_gtFine_labelIds.png"
    mask.rename(mask.with_suffix(".PNG"))
    with pytest.raises(NotReady, match=r"labelIds\.png: must be there as the mask of"):
        read("val", "cityscapes", root)


def test_size_is_that_of_the_first_image_that_can_be_read(tmp_path: Path) -> None:
    root = make("sa1b", tmp_path)
    (root / "sa_8.jpg").write_bytes(b"broken")
    (root / "sa_9.jpg").write_bytes(b"")

    assert source(root).image_hw == (28, 36)

    for number in (10, 11):
        (root / f"sa_{number}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"sa_8\.jpg: must be an image, .* \(and 3 more; "):
        _ = source(root).image_hw


def test_sa1b_cannot_be_evaluated_on(tmp_path: Path) -> None:
    root = make("sa1b", tmp_path)

    with pytest.raises(
        DataError, match=r"data set sa1b: must have what to evaluate on, but .* no val"
    ):
        read("val", "sa1b", root)


def test_no_image_is_opened_to_list_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make("voc21", tmp_path)
    monkeypatch.setattr(Image, "open", None)

    assert len(read("val", "voc21", root)) == 4


def test_identity_follows_the_contents_and_not_the_place(tmp_path: Path) -> None:
    before = read("val", "voc21", make("voc21", tmp_path / "a")).identity()

    after = read("val", "voc21", make("voc21", tmp_path / "b")).identity()

    assert after == before


def test_identity_is_that_of_the_plug_in_whatever_the_data_file_is_called(tmp_path: Path) -> None:
    root = make("voc21", tmp_path)
    mine = edited("voc21", tmp_path / "mine.yaml", "logit_scale: 65", "logit_scale: 40")
    specs = [DatasetSpec(name=name, path=str(root)) for name in ("voc21", str(mine))]

    identities = [dataset_identity(spec, "val") for spec in specs]

    assert identities[0] == identities[1]
    assert identities[0]["name"] == "tree"


@pytest.mark.parametrize("change", ["image", "mask", "list", "classes", "labels", "count"])
def test_identity_changes_with_whatever_is_used(tmp_path: Path, change: str) -> None:
    root, name, count = make("voc21", tmp_path), "voc21", None
    before = read("val", name, root).identity()
    if change == "image":
        trees.write_photograph(root / "JPEGImages" / "2008_000000.jpg", trees.HW, seed=99)
    elif change == "mask":
        write_palette(root / "SegmentationClass" / "2008_000000.png", np.zeros(trees.HW, np.uint8))
    elif change == "list":
        write_list(root / "ImageSets/Segmentation/val.txt", ["2008_000000", "2008_000001"])
    elif change == "classes":
        name = str(edited("voc21", tmp_path / "a.yaml", "[ship]", "[boat]"))
    elif change == "labels":
        new = f"labels: {{255: 255, {', '.join(f'{v}: {v}' for v in range(21))}}}"
        name = str(edited("voc21", tmp_path / "a.yaml", "labels: as_stored", new))
    else:
        count = 2

    after = read("val", name, root, count=count).identity()

    assert after != before


def test_identity_leaves_out_what_is_not_used(tmp_path: Path) -> None:
    root = make("voc21", tmp_path)
    before = read("val", "voc21", root).identity()

    trees.write_photograph(root / "JPEGImages" / "2012_004331.jpg", trees.HW, seed=99)
    names = voc(root, "list")
    names.write_text(names.read_text() + "\n")

    assert read("val", "voc21", root).identity() == before


def test_class_names_of_the_spec_must_be_as_many_as_the_labels(tmp_path: Path) -> None:
    root, names = make("voc20", tmp_path), [[f"thing {index}"] for index in range(20)]

    assert read("val", "voc20", root, classes=names).classes == names
    with pytest.raises(
        DataError, match="data set voc20: classes: must name its 20 classes, but got 19"
    ):
        read("val", "voc20", root, classes=names[1:])


def voc(root: Path, part: str) -> Path:
    parts = {"list": "ImageSets/Segmentation/val.txt", "image": "JPEGImages/2008_000001.jpg",
             "mask": "SegmentationClass/2008_000001.png"}  # fmt: skip
    return root / parts[part]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("list", "must list the images, one a line, but cannot be read"),
        ("image", "must be there, for ImageSets/Segmentation/val.txt lists it"),
        ("mask", "must be there as the mask of 2008_000001.jpg"),
    ],
)
def test_file_that_is_missing_is_named(tmp_path: Path, part: str, said: str) -> None:
    root = make("voc21", tmp_path)
    voc(root, part).unlink()

    with pytest.raises(NotReady, match=said) as caught:
        read("val", "voc21", root)

    assert str(caught.value).startswith(f"{voc(root, part)}: ")
    assert "\n" not in str(caught.value)


def test_first_missing_file_stands_for_all_of_them(tmp_path: Path) -> None:
    root = make("voc21", tmp_path)
    for path in (root / "SegmentationClass").glob("2008_*"):
        path.unlink()

    with pytest.raises(NotReady, match=r"2008_000000\.png: .* \(and 3 more; `spar-bench datasets"):
        read("val", "voc21", root)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must list the images, one a line, but is empty"),
        (b"\xff\xfe2\x00", "must be UTF-8 text, but is not"),
        (b"2008_000000\n2008_000001\n2008_000000\n", "but has '2008_000000' 2 times; keep one"),
    ],
)
def test_list_that_makes_no_sense_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    root = make("voc21", tmp_path)
    voc(root, "list").write_bytes(content)

    with pytest.raises(DataError, match=said):
        read("val", "voc21", root)


@pytest.mark.parametrize(
    ("name", "gone", "said"),
    [
        ("ade20k", "images/validation/ADE_val_00000002.jpg",
         "annotations/validation/ADE_val_00000002.png is its mask"),
        ("cityscapes", "leftImg8bit/val/lindau/lindau_000000_000001_leftImg8bit.png",
         "lindau_000000_000001_gtFine_labelIds.png is its mask"),
    ],
)  # fmt: skip
def test_mask_without_its_image_is_told(tmp_path: Path, name: str, gone: str, said: str) -> None:
    root = make(name, tmp_path)
    (root / gone).unlink()

    with pytest.raises(NotReady, match=said) as caught:
        read("val", name, root)

    assert str(caught.value).startswith(f"{root / gone}: ")


def test_folder_without_images_is_told(tmp_path: Path) -> None:
    root = make("ade20k", tmp_path)
    for path in [*root.rglob("*.jpg"), *root.rglob("*.png")]:
        path.unlink()

    with pytest.raises(NotReady, match=r"must hold images/validation/\{name\}\.jpg, but has none"):
        read("val", "ade20k", root)


def test_folders_that_are_links_are_read_but_no_link_upwards(tmp_path: Path) -> None:
    root = make("cityscapes", tmp_path)
    for kind in ("leftImg8bit", "gtFine"):
        lindau = root / kind / "val" / "lindau"
        lindau.rename(tmp_path / f"{kind} of lindau")
        lindau.symlink_to(tmp_path / f"{kind} of lindau")
        (root / kind / "val" / "loop").symlink_to(root)

    assert len(read("val", "cityscapes", root)) == 4


def test_hidden_files_of_another_system_are_passed_over(tmp_path: Path) -> None:
    root = make("ade20k", tmp_path)
    (root / "images" / "validation" / "._ADE_val_00000001.jpg").write_bytes(b"\0")

    assert len(read("val", "ade20k", root)) == 4


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("voc21", 21, "must hold 0 to 20 and 255 alone, but has 21 in 5 px"),
        ("voc20", 200, "must hold 0 to 20 and 255 alone, but has 200 in 5 px"),
        ("ade20k", 151, "must hold 0 to 150 and 255 alone, but has 151 in 5 px"),
        ("cityscapes", 34, "must hold 0 to 33 alone, but has 34 in 5 px"),
    ],
)
def test_value_that_means_nothing_is_told(tmp_path: Path, name: str, value: int, said: str) -> None:
    root, stored = make(name, tmp_path, n=1), np.zeros(trees.HW, np.uint8)
    stored[3, :5] = value
    masks = [p for p in root.rglob("*.png") if "train" not in str(p) and "leftImg" not in p.name]
    [mask] = [p for p in masks if "2007" not in p.name and "color" not in p.name]
    write_grey(mask, stored)

    with pytest.raises(DataError, match=said) as caught:
        read("val", name, root).sample(0)

    assert str(caught.value).startswith(f"{mask}: ")


def test_label_of_a_data_set_in_tables_is_its_data_files_name(tmp_path: Path) -> None:
    mine = edited("voc21", tmp_path / "voc_of_mine.yaml", "65", "64")

    assert datasets.label(DatasetSpec(name="voc21", path="/data/VOC2012")) == "voc21"
    assert datasets.label(DatasetSpec(name=str(mine), path="/data/VOC2012")) == "voc_of_mine"
    assert datasets.label(DatasetSpec(name="voc21", label="Pascal")) == "Pascal"


def test_miniature_trees_are_all_there_is() -> None:
    served = {n for n in registry.names("datasets") if registry.plugin("datasets", n) == "tree"}

    assert served == set(MAKERS)
