"""Several processes that work on one spec: each stage is made once, by whichever is free."""

import json
import subprocess
import sys
from pathlib import Path

from spar_bench.results import Results
from spar_bench.session.join import join
from spar_bench.session.options import Options
from spar_bench.session.sweep import sweep
from spar_bench.store import Store
from tests.session.test_sweep import told
from tests.small import DIVERGING, TIMED, TINY, copy_store, spar_bench, write_spec


def test_all_but_timings_is_made_and_a_sweep_then_only_times(here: Path, swept: Path) -> None:
    spec = write_spec(TIMED)

    made = join(spec)
    kinds = [stage.kind for stage in Store(Path(".spar_bench")).finished()]
    has_results = Path(".spar_bench/results").exists()
    outcome = sweep(spec)

    assert made.n_made == len(kinds)
    assert "latency" not in kinds
    assert not has_results
    assert outcome.n_made == 1
    untimed = Results.load(swept / ".spar_bench/results/tiny").rows
    assert told(outcome.rows) == told(untimed)


def test_two_processes_share_the_stages_of_a_spec(here: Path, swept: Path) -> None:
    spec = write_spec(TINY)
    command = [sys.executable, "-m", "spar_bench", "work", "--any", spec, "--threads", "1"]

    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]

    assert [process.returncode for process in both] == [0, 0], said
    numbers = [int(out.split(" stages made here")[0].split()[-1]) for out, _ in said]
    assert sum(numbers) == len(list(Store(Path(".spar_bench")).finished()))
    made = [
        line.split()[2] for _, err in said for line in err.splitlines() if line.startswith("made")
    ]
    assert len(made) == len(set(made)) == sum(numbers)
    outcome = sweep(spec)
    assert outcome.n_made == 0
    assert told(outcome.rows) == told(Results.load(swept / ".spar_bench/results/tiny").rows)
    assert list(Path(".spar_bench/scratch").iterdir()) == []
    left = [path.name for path in Path(".spar_bench/leases").iterdir()]
    assert left == []


def test_what_fails_is_told_with_exit_code_1_and_the_rest_is_made(here: Path) -> None:
    result = spar_bench("work", "--any", write_spec(DIVERGING), exits=1)

    assert "made here, some failed" in result.stdout
    assert [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    kinds = [stage.kind for stage in Store(Path(".spar_bench")).finished()]
    assert kinds.count("student") == kinds.count("evaluate") == 1


def test_finished_spec_has_nothing_left(here: Path, swept: Path) -> None:
    spec = copy_store(swept)

    result = spar_bench("work", "--any", "tiny")

    assert result.stdout == f"{spec}: 0 stages made here, none is left but timings\n"


def test_either_a_spec_or_fingerprints_are_given(here: Path) -> None:
    spec = write_spec(TINY)
    for arguments in ([spec], ["--any", spec, "abc"]):
        result = spar_bench("work", *arguments, exits=2)
        assert "give --any, or the FINGERPRINTs of stages of PLAN, but not both" in result.stderr


def test_trials_of_a_search_are_left_to_its_sweep(here: Path) -> None:
    search = TINY[: TINY.index("sweep:")] + (
        "sweep:\n  - search:\n      trials: 2\n      objectives: {miou: maximize}\n"
        "      space: {student.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}}\n"
    )

    made = join(write_spec(search), Options(store="store"))

    assert (made.n_made, made.failures) == (0, {})
    assert json.loads(Path("store/store.json").read_text())
