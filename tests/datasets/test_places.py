"""Where a published data set is looked for, and the message when it is not found."""

from pathlib import Path

import pytest

from spar_bench.datasets.base import Dataset
from spar_bench.errors import NotReady
from spar_bench.resolve import open_dataset
from spar_bench.spec.schema import DatasetSpec
from tests.datasets.trees import MAKERS, make


def read(name: str, path: str | None = None) -> Dataset:
    split = "train" if name == "sa1b" else "val"
    return open_dataset(DatasetSpec(name=name, path=path), split)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with no folder of data configured."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("SPAR_BENCH_DATA", raising=False)


@pytest.mark.parametrize("name", MAKERS)
def test_tree_below_the_configured_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make(name, tmp_path / "sets")
    monkeypatch.setenv("SPAR_BENCH_DATA", str(tmp_path / "sets"))

    assert len(read(name)) == 4


@pytest.mark.parametrize("name", MAKERS)
def test_tree_below_data_in_the_working_directory_is_found(name: str) -> None:
    make(name, Path("data"))

    assert len(read(name)) == 4


@pytest.mark.parametrize("name", MAKERS)
def test_path_may_be_the_tree_or_the_folder_above(tmp_path: Path, name: str) -> None:
    root = make(name, tmp_path / "sets")

    assert len(read(name, str(root))) == len(read(name, str(tmp_path / "sets"))) == 4


@pytest.mark.parametrize("name", MAKERS)
def test_folder_above_may_hold_every_other_set_too(tmp_path: Path, name: str) -> None:
    for other in MAKERS:
        make(other, tmp_path, n=2)
    root = make(name, tmp_path / "alone", n=2)

    found = read(name, str(tmp_path))

    assert found.identity() == read(name, str(root)).identity()
    assert len(found) == 2


def test_other_sets_are_no_distillation_images_where_sa1b_is_missing(tmp_path: Path) -> None:
    for other in MAKERS:
        if other != "sa1b":
            make(other, tmp_path)

    with pytest.raises(NotReady, match=r"must hold \{name\}\.jpg, but has none"):
        read("sa1b", str(tmp_path))


def test_path_may_be_the_devkit_that_holds_several_years(tmp_path: Path) -> None:
    make("context60", tmp_path, n=3)
    devkit = make("voc21", tmp_path, n=2).parent

    found = {name: len(read(name, str(devkit))) for name in ("voc21", "context60")}

    assert found == {"voc21": 2, "context60": 3}


def test_path_goes_before_the_configured_folder_and_that_before_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("voc21", Path("data"), n=2)
    make("voc21", tmp_path / "configured", n=3)
    root = make("voc21", tmp_path / "given", n=4)
    found = [len(read("voc21"))]

    monkeypatch.setenv("SPAR_BENCH_DATA", str(tmp_path / "configured"))
    found += [len(read("voc21")), len(read("voc21", str(root)))]

    assert found == [2, 3, 4]


def test_data_is_looked_into_where_the_configured_folder_has_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("voc21", Path("data"))
    monkeypatch.setenv("SPAR_BENCH_DATA", str(tmp_path))

    assert len(read("voc21")) == 4


def test_home_folder_is_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("voc21", tmp_path / "sets")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPAR_BENCH_DATA", "~/sets")

    assert len(read("voc21")) == len(read("voc21", "~/sets")) == 4


def test_missing_data_set_is_one_line_of_what_and_where_and_whence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPAR_BENCH_DATA", "/sets")

    with pytest.raises(NotReady) as caught:
        read("voc21")

    assert str(caught.value) == (
        "data set voc21: JPEGImages/ must be in VOCdevkit/VOC2012 or VOC2012 below /sets or data, "
        "but is not there; get it from "
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (Flickr terms of use), and give its "
        "folder as `path:`, or the parent folder as SPAR_BENCH_DATA"
    )


def test_path_without_the_tree_is_told_with_the_places_looked_in(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="images/validation/ must be in ") as caught:
        read("ade20k", str(tmp_path))

    assert f" {tmp_path}, or below it in ADEChallengeData2016 or " in str(caught.value)
    assert "non-commercial research" in str(caught.value)


def test_data_folder_is_not_taken_for_photographs(tmp_path: Path) -> None:
    make("voc21", Path("data"))

    with pytest.raises(NotReady, match="data set sa1b: its folder must be in SA-1B or "):
        read("sa1b")
