"""What a data set is called in tables."""

from pathlib import Path

import pytest

from spar_bench.datasets import label
from spar_bench.spec.schema import DatasetSpec


def test_data_set_is_called_as_the_spec_says() -> None:
    assert label(DatasetSpec(name="folder", path="/data/streets", label="Streets")) == "Streets"


def test_data_set_without_a_label_is_called_as_its_folder() -> None:
    assert label(DatasetSpec(name="folder", path="/data/streets/")) == "streets"


def test_current_folder_has_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert label(DatasetSpec(name="folder", path=".")) == tmp_path.name


def test_data_set_without_a_folder_is_called_as_its_plug_in() -> None:
    assert label(DatasetSpec(name="patchwork")) == "patchwork"
