"""The embedded data set: splits that share no scene, and labels in the order of the classes."""

from collections.abc import Callable

import numpy as np
import pytest

from spar_bench.datasets import patchwork
from spar_bench.datasets.base import Dataset, DatasetSettings, Split
from spar_bench.errors import SpecError
from spar_bench.patchwork.classes import CLASSES
from spar_bench.testing import DatasetContract


def read(split: Split, count: int | None = None) -> patchwork.Dataset:
    return patchwork.Dataset(split, DatasetSettings(count=count))


class TestPatchwork(DatasetContract):
    @pytest.fixture
    def make(self) -> Callable[[Split, int | None], Dataset]:
        return read


def test_validation_is_48_scenes_of_256_by_320() -> None:
    dataset = read("val")

    assert len(dataset) == 48
    assert dataset.sample(47).image.shape == (256, 320, 3)


def test_train_and_val_show_other_scenes_at_the_same_index() -> None:
    assert not np.array_equal(read("train").image(0), read("val").image(0))


def test_scenes_beyond_the_count_are_refused() -> None:
    with pytest.raises(IndexError, match="scene 2 of 2"):
        read("val", 2).image(2)


def test_class_names_of_the_spec_take_the_place_of_the_scenes_own() -> None:
    names = [[f"word {index}"] for index in range(len(CLASSES))]

    assert patchwork.Dataset("val", DatasetSettings(classes=names)).classes == names


def test_class_names_that_do_not_fit_the_labels_are_refused() -> None:
    with pytest.raises(SpecError, match="must name the 14 classes of the scenes, but got 1;"):
        patchwork.Dataset("val", DatasetSettings(classes=[["heart"]]))


def test_folder_is_refused_for_scenes_that_are_drawn() -> None:
    with pytest.raises(SpecError, match=r"path: must be left out, .* but got /scenes; leave it"):
        patchwork.Dataset("val", DatasetSettings(path="/scenes"))
