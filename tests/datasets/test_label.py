"""What a data set is called in tables."""

from pathlib import Path

import pytest

from spar_bench.spec.schema import DatasetSpec
from tests.datasets.trees import edited


def test_data_set_is_called_as_the_spec_says() -> None:
    assert (
        DatasetSpec(name="folder", path="/data/streets", label="Streets").display_name == "Streets"
    )


def test_data_set_without_a_label_is_called_as_its_folder() -> None:
    assert DatasetSpec(name="folder", path="/data/streets/").display_name == "streets"


def test_current_folder_has_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert DatasetSpec(name="folder", path=".").display_name == tmp_path.name


def test_data_set_without_a_folder_is_called_as_its_plug_in() -> None:
    assert DatasetSpec(name="patchwork").display_name == "patchwork"


def test_label_of_a_data_set_in_tables_is_its_data_files_name(tmp_path: Path) -> None:
    mine = edited("voc21", tmp_path / "voc_of_mine.yaml", "65", "64")

    assert DatasetSpec(name="voc21", path="/data/VOC2012").display_name == "voc21"
    assert DatasetSpec(name=str(mine), path="/data/VOC2012").display_name == "voc_of_mine"
    assert DatasetSpec(name="voc21", label="Pascal").display_name == "Pascal"
