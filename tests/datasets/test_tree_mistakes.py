"""The messages about a published data set with a missing or invalid file."""

from pathlib import Path

import pytest

from spar_bench.errors import DataError, NotReady
from tests.datasets.trees import make, read

VOC = {
    "list": "ImageSets/Segmentation/val.txt",
    "image": "JPEGImages/2008_000001.jpg",
    "mask": "SegmentationClass/2008_000001.png",
}


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
    with pytest.raises(NotReady, match=r"labelIds\.png: must exist as the mask of"):
        read("val", "cityscapes", root)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("list", "must list the images, one per line, but cannot be read"),
        ("image", "must exist, for ImageSets/Segmentation/val.txt lists it"),
        ("mask", "must exist as the mask of 2008_000001.jpg"),
    ],
)
def test_file_that_is_missing_is_named(tmp_path: Path, part: str, said: str) -> None:
    root = make("voc21", tmp_path)
    (root / VOC[part]).unlink()

    with pytest.raises(NotReady, match=said) as caught:
        read("val", "voc21", root)

    assert str(caught.value).startswith(f"{root / VOC[part]}: ")
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
        (b"", "must list the images, one per line, but is empty"),
        (b"\xff\xfe2\x00", "must be UTF-8 text, but is not"),
        (b"2008_000000\n2008_000001\n2008_000000\n", "but has '2008_000000' 2 times; keep one"),
    ],
)
def test_list_that_makes_no_sense_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    root = make("voc21", tmp_path)
    (root / VOC["list"]).write_bytes(content)

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


@pytest.mark.parametrize(("part", "ending"), [("image", ".JPG"), ("mask", ".PNG")])
def test_listed_file_whose_ending_is_spelt_otherwise_is_to_be_renamed(
    tmp_path: Path, part: str, ending: str
) -> None:
    path = make("voc21", tmp_path) / VOC[part]
    path.rename(path.with_suffix(ending))

    with pytest.raises(NotReady, match=rf"but does not; rename 2008_000001\{ending}"):
        read("val", "voc21", tmp_path)
