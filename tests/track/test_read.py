"""Results come back from MLflow as they were logged."""

from pathlib import Path

import numpy as np
import pytest

from spar_bench.errors import NotReady
from spar_bench.track import Mirror, experiments, read_results
from spar_bench.track.entry import folder_digest
from tests.track.conftest import make_results, make_row, make_trial, mirror, query


def test_results_come_back_as_they_were(uri: str, tmp_path: Path) -> None:
    mirror(uri, tmp_path, [make_trial()])

    results = read_results(uri, "stride", tmp_path / "back")

    assert results.rows == [make_row()]
    expected = make_results([]).counts["teacher28"]
    np.testing.assert_array_equal(results.counts["teacher28"].correct, expected.correct)


def test_newest_is_what_was_swept_last_even_when_nothing_was_left_to_do(
    uri: str, tmp_path: Path
) -> None:
    old, new = (make_trial(rows=[make_row(miou=miou)]) for miou in (0.25, 0.75))
    mirror(uri, tmp_path, [old], spec_hash="01d" * 20)
    mirror(uri, tmp_path, [new], spec_hash="4e3" * 20)
    after_new = read_results(uri, "stride", tmp_path / "1")
    mirror(uri, tmp_path, [old], spec_hash="01d" * 20)

    after_old = read_results(uri, "stride", tmp_path / "2")

    assert [after_new.rows[0].miou, after_old.rows[0].miou] == [0.75, 0.25]


def test_stopping_a_second_sweep_keeps_the_results_of_the_first(uri: str, tmp_path: Path) -> None:
    mirror(uri, tmp_path, [make_trial()])
    mirror(uri, tmp_path, [make_trial()], status="killed")

    assert read_results(uri, "stride", tmp_path / "back").rows == [make_row()]


@pytest.mark.parametrize("experiment", ["stride", "never/heard of"])
def test_experiment_without_results_is_named_with_a_way_out(
    uri: str, tmp_path: Path, experiment: str
) -> None:
    mirror(uri, tmp_path, [make_trial()], status="killed")

    with pytest.raises(NotReady, match=rf"'{experiment}'.*run spar-bench sweep"):
        read_results(uri, experiment, tmp_path / "back")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("strid", "did you mean 'stride'? If not, run spar-bench sweep on its spec first"),
        ("a b c ü", "did you mean 'a_b_c_ü'? If not, run spar-bench sweep on its spec first"),
        ("loss", "run spar-bench sweep on its spec first, or use one of a_b_c_ü, stride"),
        ("strides", "run spar-bench sweep on its spec first"),  # it has begun
    ],
)
def test_experiment_whose_name_is_misspelt_is_told_the_nearest_that_was_swept(
    uri: str, tmp_path: Path, typed: str, said: str
) -> None:
    for experiment in ("stride", "a_b_c_ü"):
        mirror(uri, tmp_path, [make_trial()], experiment=experiment)
    Mirror(uri).start("strides", "", "10" * 32, {})

    with pytest.raises(NotReady) as caught:
        read_results(uri, typed, tmp_path / "back")

    assert str(caught.value).endswith(f" has finished there; {said}")


def test_results_that_were_being_written_are_refused(uri: str, tmp_path: Path) -> None:
    mirror(uri, tmp_path, [make_trial()])
    (uploaded,) = (tmp_path / "a b").rglob("results/results.json")
    uploaded.write_text(uploaded.read_text().replace("0.5", "0.6"))

    with pytest.raises(NotReady, match=r"stopped while writing"):
        read_results(uri, "stride", tmp_path / "back")


@pytest.mark.parametrize("whole", [False, True])
def test_results_of_another_version_are_said_to_be_so_and_the_next_sweep_rewrites_them(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    with monkeypatch.context() as older:
        older.setattr("spar_bench.results.RESULTS_FORMAT", 0)
        older.setattr(
            "spar_bench.track.sweep_runs.folder_digest", lambda f: folder_digest(f) if whole else ""
        )
        mirror(uri, tmp_path, [make_trial()])
    if whole:
        monkeypatch.setattr("spar_bench.results.Cost", lambda: None)  # a column was added since

    with pytest.raises(NotReady, match=r"another version wrote them .* repeats no finished work"):
        read_results(uri, "stride", tmp_path / "back")
    monkeypatch.undo()
    mirror(uri, tmp_path, [make_trial()])

    assert read_results(uri, "stride", tmp_path / "again").rows == [make_row()]


def test_experiments_are_those_with_results(uri: str, tmp_path: Path) -> None:
    mirror(uri, tmp_path, [make_trial()], experiment="paper/stride")
    mirror(uri, tmp_path, [make_trial()], experiment="window")
    Mirror(uri).start("loss", "", "10" * 32, {})

    assert query(uri, "SELECT count(*) FROM experiments") == [(4,)]
    assert experiments(uri) == ["paper/stride", "window"]
