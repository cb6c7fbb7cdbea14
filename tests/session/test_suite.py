"""A suite: the specs of a folder, planned, swept and reported as a whole."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from spar_bench.results import Results
from spar_bench.session.planning import plan_sweep
from spar_bench.session.selection import note_suite
from spar_bench.session.sweep import Options, sweep
from spar_bench.session.unreachable import unreachable
from spar_bench.store import Store
from tests.session.searches import LAGGING
from tests.small import DIVERGING, HEAD, UNTIMED, one_line, spar_bench, write_spec

STORE = Path(".spar_bench")
TIMES = "measure: {seconds: 0.01}\n"
FIRST = """\
sweep:
  - grid: {teacher.stride_px: [64, 32]}
    set: {evaluate.methods: [teacher]}
"""
SECOND = """\
sweep:
  - grid: {teacher.stride_px: [32]}
    set: {evaluate.methods: [pretrained, teacher]}
"""
SEARCH = """\
sweep:
  - set: {evaluate.methods: [teacher]}
    search: {space: {teacher.stride_px: {choices: [64, 32]}}, trials: 2, sampler: random}
"""


@pytest.fixture
def suite(here: Path) -> str:
    """Write a suite of two experiments that share a teacher."""
    Path("experiments/pair").mkdir(parents=True)
    write_spec(HEAD + TIMES + FIRST, "pair/first")
    write_spec(HEAD + TIMES + SECOND, "pair/second")
    return "experiments/pair"


def test_what_experiments_share_is_planned_once_and_timed_in_one_session(suite: str) -> None:
    apart = [plan_sweep(f"{suite}/{name}.yaml") for name in ("first", "second")]

    view = plan_sweep(suite)

    assert [trial.name for trial in view.plan.trials] == [
        "pair/first/stride_px=64",
        "pair/first/stride_px=32",
        "pair/second/stride_px=32",
    ]
    kinds = [planned.stage.kind for planned in view.stages]
    assert kinds.count("evaluate") == 3
    assert [len(one.plan.trials) for one in apart] == [2, 1]
    assert sum(p.stage.kind == "evaluate" for one in apart for p in one.stages) == 4
    assert kinds.count("latency") == 1
    assert len(view.plan.session.settings.timed) == 3


def test_suite_gives_each_experiment_the_numbers_that_it_has_alone(
    suite: str, tmp_path: Path
) -> None:
    whole = sweep(suite, Options(store=STORE))

    alone = sweep(f"{suite}/second.yaml", Options(store=tmp_path / "other")).rows
    found = Results.load(STORE / "results/pair/second").rows
    assert [(row.trial, row.method, row.miou) for row in found] == [
        (row.trial, row.method, row.miou) for row in alone
    ]
    assert [row.experiment for row in whole.rows] == ["pair/first"] * 2 + ["pair/second"] * 2
    assert set(whole.trials) == {
        "pair/first/stride_px=64", "pair/first/stride_px=32", "pair/second/stride_px=32",
    }  # fmt: skip
    assert all(row.cost.latency_p50_ms for row in whole.rows)
    assert len({row.stages["latency"] for row in whole.rows}) == 1


def test_suite_that_is_swept_again_makes_nothing(suite: str) -> None:
    sweep(suite)

    again = sweep(suite)

    assert again.n_made == 0
    record = json.loads((STORE / "results/pair/suite.json").read_text())
    assert record == {"experiments": ["pair/first", "pair/second"]}


def test_one_trial_of_a_suite_is_named_by_its_experiment(suite: str) -> None:
    outcome = sweep(suite, Options(only="pair/first/stride_px=64"))

    assert [row.status for row in outcome.rows].count("finished") == 1
    assert [name for name, is_done in outcome.trials.items() if is_done] == [
        "pair/first/stride_px=64"
    ]


def test_searches_of_a_suite_follow_its_grids(here: Path) -> None:
    Path("experiments/mixed").mkdir(parents=True)
    write_spec(UNTIMED + SEARCH, "mixed/a_search")
    write_spec(UNTIMED + FIRST, "mixed/grid")

    outcome = sweep("experiments/mixed")

    assert {row.experiment for row in outcome.rows} == {"mixed/a_search", "mixed/grid"}
    assert all(row.status == "finished" for row in outcome.rows)


CLAIMS = """\
claims:
  - claim: A finer stride is better by half
    higher: {method: teacher, teacher.stride_px: 32}
    lower: {method: teacher, teacher.stride_px: 64}
    by: 0.5
"""
MORE = """\
claims:
  - claim: Windows cost more
    quantity: gflops
    higher: {method: teacher}
    lower: {method: pretrained}
    times: 1.5
"""


def test_report_of_a_suite_has_a_verdict_on_each_claim(suite: str) -> None:
    write_spec(HEAD + TIMES + CLAIMS + FIRST, "pair/first")
    write_spec(HEAD + TIMES + MORE + SECOND, "pair/second")
    sweep(suite)

    said = spar_bench("report", "--suite").stdout

    with Path("reports/pair/claims.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["experiment"], line["verdict"]) for line in lines] == [
        ("pair/first", "off"),
        ("pair/second", "reproduced"),
    ]
    assert [line["line"] for line in lines] == ["12", "12"]
    assert float(lines[1]["measured"]) > 1.5
    page = Path("reports/pair/README.md").read_text()
    assert "1 reproduced, 1 off." in page
    assert "(first/README.md)" in page
    assert Path("reports/pair/first/README.md").exists()
    assert said.count("files; start with") == 3


def test_report_knows_a_suite_by_its_name(suite: str) -> None:
    sweep(suite)

    spar_bench("report", "pair")

    assert Path("reports/pair/README.md").exists()


def test_report_opens_the_page_of_a_suite_that_it_wrote_last(
    suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = list[str]()
    monkeypatch.setattr("webbrowser.open", shown.append)
    sweep(suite)

    spar_bench("report", "pair/second", "pair", "--open")

    assert shown == [Path("reports/pair/index.html").absolute().as_uri()]


def test_report_without_a_suite_is_one_line(in_swept: Path) -> None:
    said = spar_bench("report", "--suite", exits=2).stderr

    assert ".spar_bench: must hold a suite that was swept, but holds none; run" in said


def test_nothing_of_a_suite_is_unreachable(suite: str) -> None:
    sweep(suite)

    found = unreachable(Store(STORE), Path("experiments"))

    assert found.finished == []


def test_commands_take_a_folder_by_its_path_or_name(suite: str) -> None:
    assert spar_bench("check", suite).stdout == (
        f"{suite}/first.yaml: is valid, 2 trials\n{suite}/second.yaml: is valid, 1 trial\n"
    )
    assert spar_bench("plan", "pair").stdout.startswith("pair: 2 experiments\n")
    assert spar_bench("status", suite).stdout.count("pair/") == 2


def test_folder_without_specs_is_one_line(here: Path) -> None:
    Path("empty").mkdir()

    said = spar_bench("plan", "empty", exits=2).stderr

    assert said == "empty: must hold specs, but has no YAML file; name a folder of them\n"


def test_mistakes_of_all_specs_are_told_at_once(here: Path) -> None:
    Path("experiments/wrong").mkdir(parents=True)
    for name in ("one", "two"):
        write_spec("teachr: {}\n", f"wrong/{name}")

    said = spar_bench("plan", "experiments/wrong", exits=2).stderr

    assert [line.split(":")[0] for line in said.splitlines()] == [
        "experiments/wrong/one.yaml",
        "experiments/wrong/two.yaml",
    ]


@pytest.mark.parametrize("experiment", ["pair/pair.yaml", "pair.yml"])
def test_suite_that_is_named_as_an_experiment_is_refused(here: Path, experiment: str) -> None:
    Path("pair").mkdir()
    for path in ("pair/other.yaml", experiment):
        Path(path).write_text(UNTIMED)

    for command in ("check", "plan", "sweep"):
        assert one_line(spar_bench(command, "pair", exits=2)) == (
            "pair: must not have an experiment's name, since each has a report, but "
            f"{experiment} is called 'pair' too; rename one of them"
        )


def test_experiment_that_is_named_as_a_suite_that_was_swept_is_refused(here: Path) -> None:
    note_suite(Path("experiments/pair"), ["pair/first"], Store(STORE))

    refused = one_line(spar_bench("sweep", write_spec(UNTIMED, "pair"), exits=2))

    assert refused.startswith(
        "experiments/pair.yaml: an experiment must have a unique name, but 'pair' is also a folder "
        "that was swept as one; rename one of them and delete "
    )
    assert list(Store(STORE).finished()) == []


def status(*specs: str) -> list[list[str]]:
    """Return the rows of `status` without its header."""
    return [line.split() for line in spar_bench("status", *specs).stdout.splitlines()[1:]]


def test_timings_of_a_suite_are_those_of_its_experiments(suite: str) -> None:
    sweep(suite)
    first, second = [["pair/first", "2", "2"], ["pair/second", "1", "1"]]
    none = ["0"] * 3

    assert status(suite) == [first + none, second + none]
    assert status(f"{suite}/first.yaml") == [first + none]
    shutil.rmtree(STORE / "stages/latency")
    left = ["latency", "to", "do"]
    assert status(suite) == [first + none + left, second + none + left]


def test_suite_with_a_search_is_planned_as_it_is_swept(here: Path) -> None:
    Path("experiments/mixed").mkdir(parents=True)
    write_spec(LAGGING.replace(UNTIMED, HEAD + TIMES), "mixed/a_search")
    write_spec(HEAD + TIMES + FIRST, "mixed/grid")
    before = plan_sweep("experiments/mixed")
    one = plan_sweep("experiments/mixed", only="mixed/grid/stride_px=64")

    sweep("experiments/mixed")
    after = plan_sweep("experiments/mixed")

    assert [trial.name for trial in before.plan.trials][:3] == [
        "mixed/grid/stride_px=64",
        "mixed/grid/stride_px=32",
        "mixed/a_search/learning_rate=0.001,epochs=3,seed=0",
    ]
    assert [trial.name for trial in one.plan.trials] == ["mixed/grid/stride_px=64"]
    for view in (before, after):
        timed = [planned for planned in view.stages if planned.stage.kind == "latency"]
        assert [planned.n_trials for planned in timed] == [2, 5]
        assert sum(planned.n_trials for planned in view.stages if planned.stage.kind == "text") == 7
    assert after.missing == []
    assert "pruned" in {planned.status for planned in after.stages}


def test_failed_trials_of_a_suite_are_named_by_their_experiments(here: Path) -> None:
    Path("experiments/pair").mkdir(parents=True)
    for name, epochs in (("first", 2), ("second", 3)):
        text = DIVERGING.replace(", 1.0e-3", "").replace("epochs: 2", f"epochs: {epochs}")
        write_spec(text, f"pair/{name}")

    result = spar_bench("sweep", "experiments/pair", exits=1)

    failed = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    trial = "learning_rate=1e+30,seed=0: student"
    assert [line.partition(": the loss")[0] for line in failed] == [
        f"failed: pair/first/{trial}",
        f"failed: pair/second/{trial}",
    ]
