"""What the stored values of published masks mean, against torchvision and the public tables."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Cityscapes, VOCSegmentation

from spar_bench.datasets._files import Labels
from spar_bench.errors import DataError, NotReady
from spar_bench.resolve import open_dataset
from spar_bench.spec.images import SourceSpec
from spar_bench.spec.schema import DatasetSpec
from tests.datasets import trees
from tests.datasets.trees import make, read, write_grey, write_palette


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


def test_value_255_is_ignored_unless_a_map_gives_it_a_label() -> None:
    plain, own = Labels.of({7: 0, 8: 1}, 10).table, Labels.of({7: 0, 255: 1}, 10).table

    assert (plain[7], plain[8], plain[9], plain[255]) == (0, 1, None, 255)
    assert own[255] == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("voc21", 21, "must hold only 0 to 20 and 255, but has 21 in 5 px"),
        ("voc20", 200, "must hold only 0 to 20 and 255, but has 200 in 5 px"),
        ("ade20k", 151, "must hold only 0 to 150 and 255, but has 151 in 5 px"),
        ("cityscapes", 34, "must hold only 0 to 33 and 255, but has 34 in 5 px"),
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


@pytest.mark.parametrize("name", trees.LABELLED)
def test_training_images_have_the_labels_of_the_same_rule(tmp_path: Path, name: str) -> None:
    root = make(name, tmp_path)

    plain = open_dataset(SourceSpec(name=name, path=str(root)), "train")
    trained = open_dataset(DatasetSpec(name=name, path=str(root), count=1), "train", labelled=True)
    evaluated = read("val", name, root)

    assert len(trained) == len(plain) == 4  # a spec's count is of what is evaluated
    for index in range(4):  # the miniature trees' masks have one content in both splits
        assert np.array_equal(trained.sample(index).image, plain.image(index))
        assert np.array_equal(trained.sample(index).mask, evaluated.sample(index).mask)
    assert trained.identity() != plain.identity()


def test_data_file_without_training_masks_is_told_in_one_line(tmp_path: Path) -> None:
    root = make("ade20k", tmp_path)
    old = """    masks:  # of training images, for a linear probe
      - {files: "annotations/training/{name}.png", labels: reduce_zero}
"""
    file = trees.edited("ade20k", tmp_path / "mine.yaml", old, "")
    spec = DatasetSpec(name=str(file), path=str(root))

    with pytest.raises(NotReady) as told:
        open_dataset(spec, "train", labelled=True)

    assert str(told.value) == (
        "evaluate.classifier: a linear probe must have labelled training images, but data set "
        f"{file} has none in its data file; use another data set, or use text"
    )
