"""SA-1B, which provides photographs to distil on: which files, in which order."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spar_bench.datasets.base import Dataset
from spar_bench.errors import DataError
from spar_bench.resolve import open_dataset
from spar_bench.spec.images import SourceSpec
from tests.datasets import trees
from tests.datasets.trees import make, read


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


@pytest.mark.parametrize("ending", ["JPG", "jpeg", "JPEG"])
def test_image_whose_ending_is_spelt_otherwise_is_told(tmp_path: Path, ending: str) -> None:
    root = make("sa1b", tmp_path)
    path = root / "sa_9.jpg"
    path.rename(path.with_suffix(f".{ending}"))
    (root / "sa_25001.jpg").rename(root / f"sa_25001.{ending}")  # not used anyway

    with pytest.raises(DataError) as caught:
        source(root)

    assert str(caught.value) == (
        f"{path.with_suffix('')}.{ending}: must end in .jpg, as {{name}}.jpg says, but ends in "
        f".{ending}; rename it, or remove it"
    )


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
        DataError, match=r"data set sa1b: must have data to evaluate on, but .* no val"
    ):
        read("val", "sa1b", root)
