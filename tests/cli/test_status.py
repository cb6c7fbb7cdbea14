"""The command `status`: progress of experiments, and what they lack."""

import shutil
from pathlib import Path

import pytest

from tests.cli.test_plan import UNREADY
from tests.small import TINY, copy_store, one_line, spar_bench, write_spec


def test_status_counts_trials_of_every_spec(in_swept: Path) -> None:
    said = spar_bench("status").stdout.splitlines()

    assert said[0].split() == ["experiment", "trials", "finished", "failed", "pruned", "to", "do"]
    assert said[1].split() == ["tiny", "3", "3", "0", "0", "0"]


def test_status_has_a_row_for_a_half_done_sweep_and_for_specs_that_cannot_be_swept(
    here: Path, swept: Path
) -> None:
    copy_store(swept)
    shutil.rmtree(next(Path(".spar_bench/stages/student").iterdir()))
    shutil.rmtree(Path(".spar_bench/stages/evaluate"))
    write_spec("teachr: {}\n", "wrong")

    write_spec(UNREADY, "unready")

    result = spar_bench("status")

    assert [line.split() for line in result.stdout.splitlines()[1:4]] == [
        ["tiny", "3", "0", "0", "0", "3"],
        ["unready", "3", "missing"],
        ["wrong", "has", "mistakes"],
    ]
    assert result.stdout.splitlines()[4:] == [
        "what to fix: spar-bench check --ready experiments/unready.yaml",
        "what to fix: spar-bench check --ready experiments/wrong.yaml",
    ]
    assert result.stderr == ""
    assert "wrong.yaml:1:1" in one_line(spar_bench("status", "experiments/wrong.yaml", exits=2))


@pytest.mark.parametrize(
    ("made_last", "said"),
    [
        (["latency"], "latency, results to do"),
        (["cost", "latency"], "cost, latency, results to do"),
    ],
)
def test_status_says_what_is_made_after_all_trials_and_is_not_there(
    here: Path, swept: Path, made_last: list[str], said: str
) -> None:
    copy_store(swept)
    for kind in made_last:
        shutil.rmtree(Path(".spar_bench/stages", kind))
    Path(".spar_bench/results/tiny/results.json").unlink()

    stopped = spar_bench("status").stdout
    spar_bench("sweep", "experiments/tiny.yaml")
    swept_again = spar_bench("status").stdout

    finished = "failed pruned to do tiny 3 3 0 0 0"
    assert " ".join(stopped.split()).endswith(f"{finished} {said}")
    assert " ".join(swept_again.split()).endswith(finished)


def test_status_without_specs_is_one_line(here: Path) -> None:
    assert "spar-bench init" in one_line(spar_bench("status", exits=2))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seeds": 3}'])
def test_seeds_that_cannot_be_read_are_one_line_and_leave_the_others_alone(
    here: Path, swept: Path, text: str
) -> None:
    copy_store(swept)
    write_spec(TINY, "other")
    Path(".spar_bench/results/tiny/sweep.json").write_text(text)

    stood = spar_bench("status", exits=2)
    collected = spar_bench("cache", "gc", exits=2)

    assert "other            3" in stood.stdout
    for result in (stood, collected):
        assert "must hold the seeds of the last sweep, but cannot be read" in one_line(result)


def test_seeds_that_cannot_be_read_are_written_anew_by_the_next_sweep(
    here: Path, swept: Path
) -> None:
    copy_store(swept)
    Path(".spar_bench/results/tiny/sweep.json").write_text("[]")

    assert "3 of 3 trials finished, 0 stages" in spar_bench("sweep", "experiments/tiny.yaml").stdout
    assert spar_bench("status").stderr == ""


@pytest.mark.parametrize("named", [[], ["unready"], ["experiments/unready.yaml"]])
def test_missing_weights_and_data_are_counted_and_no_failure(here: Path, named: list[str]) -> None:
    write_spec(UNREADY, "unready")

    result = spar_bench("status", *named)

    assert result.stdout.splitlines()[1].split() == ["unready", "3", "missing"]
    assert result.stdout.splitlines()[2:] == [
        "what to fix: spar-bench check --ready experiments/unready.yaml"
    ]


def test_experiment_is_named_as_report_names_it(in_swept: Path) -> None:
    by_name, by_path = spar_bench("status", "tiny"), spar_bench("status", "experiments/tiny.yaml")

    assert by_name.stdout == by_path.stdout
    assert by_name.stdout.splitlines()[1].split() == ["tiny", "3", "3", "0", "0", "0"]
