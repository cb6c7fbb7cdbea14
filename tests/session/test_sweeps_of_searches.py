"""Sweeps of a search: what fails, is pruned, lost or impossible does not stop the others."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.trial import TrialState

from spar_bench.conflicts import read_spec
from spar_bench.errors import LeaseLost
from spar_bench.results import Results
from spar_bench.session.making import Making
from spar_bench.session.search import Searcher, past_points
from spar_bench.store import Store
from tests.session.searches import LAGGING, TEACHERS
from tests.small import one_line, runs, spar_bench, write_spec


@pytest.mark.slow
def test_two_sweeps_of_a_search_make_each_trial_once_and_write_the_same(here: Path) -> None:
    spec = write_spec(TEACHERS)
    command = [sys.executable, "-m", "spar_bench", "sweep", spec, "--threads", "1"]
    both = [
        subprocess.Popen(
            [*command, "--tracking-uri", f"sqlite:///{name}.db"], stderr=subprocess.PIPE, text=True
        )
        for name in ("a", "b")
    ]
    with ThreadPoolExecutor(2) as threads:
        said = [text for _, text in threads.map(subprocess.Popen.communicate, both)]

    assert [one.returncode for one in both] == [0, 0], said
    begun = [line.split(":")[0] for text in said for line in text.splitlines() if " of 5:" in line]
    assert len(begun) == len(set(begun))
    made = [line.split()[2] for text in said for line in text.splitlines() if line[:5] == "made "]
    assert len(made) == len(set(made))
    found = Results.load(Path(".spar_bench/results/tiny"))
    assert {row.status for row in found.rows} == {"finished"}
    assert len(found.objectives) == len({row.trial for row in found.rows})


def test_search_for_two_objectives_goes_past_an_impossible_draw(here: Path) -> None:
    spec = write_spec(TEACHERS)

    first = spar_bench("sweep", spec)
    found = Results.load(Path(".spar_bench/results/tiny"))
    second = spar_bench("sweep", spec)
    looked = spar_bench("status", spec).stdout + spar_bench("plan", spec).stdout

    study = Searcher(read_spec(Path(spec)), Store(Path(".spar_bench"))).study
    impossible = {"teacher.window_px": 32, "teacher.stride_px": 64}
    is_possible = [trial.params != impossible for trial in study.trials]
    assert (len(is_possible), all(is_possible)) == (5, False)
    assert [t.state == TrialState.COMPLETE for t in study.trials] == is_possible
    assert "trial 1 of 5: window_px=64,stride_px=64" in first.stderr
    assert {tuple(scored) for scored in found.objectives.values()} == {("miou", "gflops")}
    row = found.rows[0]
    scored = found.objectives[row.trial]
    assert (scored["miou"], scored["gflops"]) == (row.miou, row.cost.gflops)
    assert ", 0 stages made now" in second.stdout
    n_trials = str(len(found.rows))
    assert looked.splitlines()[1].split() == ["tiny", n_trials, n_trials, "0", "0", "0"]
    assert "A search asks for 5 trials, one after another." in looked
    assert {status for _, status in runs()} == {"FINISHED"}


def test_what_a_search_has_pruned_is_no_failure_and_is_not_to_do(here: Path) -> None:
    spec = write_spec(LAGGING)

    first = spar_bench("sweep", spec)
    second = spar_bench("sweep", spec)
    status = spar_bench("status", spec).stdout
    plan = spar_bench("plan", spec).stdout

    assert "3 of 5 trials finished, 2 pruned, " in first.stdout
    assert "4 pruned" in first.stderr  # two students and their evaluations
    assert "failed" not in first.stderr
    assert "blocked" not in first.stderr
    assert "3 of 5 trials finished, 2 pruned, 0 stages made now" in second.stdout
    assert status.splitlines()[1].split() == ["tiny", "5", "3", "0", "2", "0"]
    assert "pruned by the search after epoch" not in status
    assert ", 0 to do." in plan
    retried = spar_bench("sweep", spec, "--retry").stdout
    assert "3 of 5 trials finished, 2 pruned, 0 stages made now" in retried
    found = Results.load(Path(".spar_bench/results/tiny"))
    assert [row.status for row in found.rows] == ["finished"] * 3 + ["pruned"] * 2
    assert dict(runs()).keys() >= {"learning_rate=1e-07,epochs=4,seed=0"}
    assert dict(runs())["learning_rate=1e-07,epochs=4,seed=0"] == "KILLED"


def test_sweep_that_loses_a_trial_to_another_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, looks = Making.check, iter(range(3))

    def check(self: Making) -> None:
        if next(looks, None) == 2:
            raise LeaseLost("it was taken over")
        real(self)

    monkeypatch.setattr(Making, "check", check)
    said = spar_bench("sweep", write_spec(TEACHERS)).stderr

    assert "it was taken over" in said
    study = Searcher(read_spec(Path("experiments/tiny.yaml")), Store(Path(".spar_bench"))).study
    assert [trial.state.is_finished() for trial in study.trials] == [True] * 5
    assert {row.status for row in Results.load(Path(".spar_bench/results/tiny")).rows} == {
        "finished"
    }


def test_trials_of_a_search_cannot_be_named(here: Path) -> None:
    result = spar_bench("sweep", write_spec(TEACHERS), "--only", "stride_px=64", exits=2)

    assert "only: must be left out where a search asks" in one_line(result)


def test_fail_fast_ends_a_search_at_the_first_failure(here: Path) -> None:
    text = LAGGING.replace("[1.0e-3, 1.0e-7]", "[1.0e+29, 1.0e+30]")
    spec = write_spec(text.split("      enqueue")[0])

    result = spar_bench("sweep", spec, "--fail-fast", exits=1)

    assert "0 of 1 trial finished" in result.stdout
    loaded = read_spec(Path(spec))
    assert len(past_points(loaded, Store(Path(".spar_bench")))) == 1
    assert list(Path(".spar_bench/leases").iterdir()) == []
