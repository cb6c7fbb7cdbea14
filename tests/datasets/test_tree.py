"""The published data sets on miniature trees: which files are read, and in which order."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from spar_bench import registry
from spar_bench.datasets.base import Dataset, Split
from spar_bench.errors import SpecError
from spar_bench.testing import DatasetContract
from tests.datasets.trees import (
    LABELLED,
    MAKERS,
    edited,
    make,
    read,
)


@pytest.mark.parametrize("name", LABELLED)
class TestTree(DatasetContract):
    @pytest.fixture
    def make(self, name: str, tmp_path: Path) -> Callable[[Split, int | None], Dataset]:
        root = make(name, tmp_path)
        return lambda split, count: read(split, name, root, count=count)


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


def test_names_are_taken_up_to_a_number_whatever_comes_before_it(tmp_path: Path) -> None:
    root = make("ade20k", tmp_path, n=4)
    old = 'images: "images/validation/{name}.jpg"'
    mine = edited("ade20k", tmp_path / "mine.yaml", old, f"{old}\n    up_to: 2")

    dataset = read("val", str(mine), root)

    assert [dataset.sample(i).name[-12:] for i in range(len(dataset))] == [
        "00000001.jpg", "00000002.jpg"]  # fmt: skip


def test_no_image_is_opened_to_list_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make("voc21", tmp_path)
    monkeypatch.setattr(Image, "open", None)

    assert len(read("val", "voc21", root)) == 4


def test_class_names_of_the_spec_must_be_as_many_as_the_labels(tmp_path: Path) -> None:
    root, names = make("voc20", tmp_path), [[f"thing {index}"] for index in range(20)]

    assert read("val", "voc20", root, classes=names).classes == names
    with pytest.raises(
        SpecError, match="data set voc20: classes: must name its 20 classes, but got 19"
    ):
        read("val", "voc20", root, classes=names[1:])


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


def test_miniature_trees_are_all_there_is() -> None:
    served = {n for n in registry.names("datasets") if registry.plugin("datasets", n) == "tree"}

    assert served == set(MAKERS)
