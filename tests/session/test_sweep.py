"""Sweeps from Python: they resume wherever stopped, and a failing mirror hides nothing."""

import threading
from pathlib import Path

import pytest

from spar_bench.engine.events import Event
from spar_bench.errors import Interrupted, NotReady, SparBenchError, StoreError
from spar_bench.plan.trials import Plan
from spar_bench.results import Results, Row
from spar_bench.session.sweep import Options, sweep
from spar_bench.session.watcher import Silent
from spar_bench.stages.base import Stage
from spar_bench.store import Store
from tests.small import TIMED, TINY, UNTIMED, copy_store, runs, write_spec


class StopAt(Silent):
    """Asks for a stop when a stage of a kind starts."""

    def __init__(self, kind: str) -> None:
        self.kind, self.stop = kind, threading.Event()
        self.seen: list[str] = []

    def planned(self, plan: Plan, store: Store) -> None:
        """Take the plan."""
        self.seen.append(f"{len(plan.stages)} planned")

    def note(self, event: Event, stage: Stage) -> None:
        """Ask for a stop at the right stage."""
        self.seen.append(f"{event.kind} {stage.kind}")
        if (event.kind, stage.kind) == ("started", self.kind):
            self.stop.set()


def told(rows: list[Row]) -> list[tuple[str, str, str, float | None]]:
    """Return what must not depend on how often a sweep was stopped."""
    return [(row.trial, row.method, row.status, row.miou) for row in rows]


@pytest.mark.parametrize(
    "kind",
    ["student", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("targets", "evaluate"))],
)
def test_stopped_sweep_goes_on_and_ends_as_an_undisturbed_one(
    here: Path, swept: Path, kind: str
) -> None:
    path, watcher = Path(write_spec(TINY)), StopAt(kind)

    with pytest.raises(Interrupted):
        sweep(path, watcher=watcher, stop=watcher.stop)
    stopped = {status for _, status in runs()}
    outcome = sweep(path)

    assert watcher.seen[0] == "11 planned"
    assert f"made {kind}" not in watcher.seen
    assert stopped <= {"FINISHED", "KILLED"}  # empty if no trial had ended
    assert told(outcome.rows) == told(Results.load(swept / ".spar_bench/results/tiny").rows)
    assert [status for _, status in runs()] == ["FINISHED"] * 5


def test_targets_of_a_finished_student_are_not_made_again(here: Path, swept: Path) -> None:
    path = Path(copy_store(swept))
    store = Store(Path(".spar_bench"))
    [targets] = [stage for stage in store.finished() if stage.manifest["kind"] == "targets"]
    store.discard(targets.fingerprint)

    outcome = sweep(path)

    assert outcome.n_made == 0
    assert outcome.unfinished == []


def test_options_name_seeds_and_store(here: Path, tmp_path: Path) -> None:
    text = TINY.split("sweep:")[0] + "sweep: [{set: {evaluate.methods: [student]}}]\n"

    outcome = sweep(Path(write_spec(text)), Options(store=tmp_path / "elsewhere", n_seeds=2))

    assert [(row.trial, row.seed) for row in outcome.rows] == [
        ("base,seed=0", 0),
        ("base,seed=1", 1),
    ]
    assert (tmp_path / "elsewhere" / "store.json").exists()
    assert not Path(".spar_bench").exists()


def test_latency_alone_is_measured_again_on_demand(here: Path) -> None:
    path, again = Path(write_spec(TIMED)), StopAt("nothing")
    first = sweep(path)

    second = sweep(path, Options(retime=True), watcher=again)

    assert [line for line in again.seen if line.startswith("made")] == ["made latency"]
    assert told(second.rows) == told(first.rows)
    assert all(row.cost.latency_p50_ms for row in second.rows)
    assert sweep(path).n_made == 0


@pytest.mark.parametrize("devices", [("cuda:99",), ("cpu", "cuda:99")])
def test_every_device_that_is_named_must_be_there(here: Path, devices: tuple[str, ...]) -> None:
    with pytest.raises(NotReady, match="cuda:99"):
        sweep(Path(write_spec(UNTIMED)), Options(devices=devices))


def test_latency_of_a_search_is_measured_again_once(here: Path) -> None:
    search = """\
sweep:
  - set: {evaluate.methods: [teacher]}
    search:
      trials: 3
      sampler: random
      objectives: {miou: maximize, latency_p50_ms: minimize}
      space: {teacher.stride_px: {choices: [32, 64]}}
"""
    path = Path(write_spec(TIMED.partition("sweep:")[0] + search))
    sweep(path)

    rows = sweep(path, Options(retime=True)).rows

    assert rows
    assert all(row.cost.latency_p50_ms for row in rows)


def test_every_trial_has_its_pictures(swept: Path) -> None:
    found = [
        sorted(path.name for path in folder.iterdir())
        for folder in (swept / ".spar_bench" / "pictures").iterdir()
    ]

    assert found == [["panel.png", "pca.png", "per_class.csv"]] * 4


def test_specs_of_one_name_are_told_apart(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    only = TINY.split("sweep:")[0] + "sweep: [{set: {evaluate.methods: [pretrained]}}]\n"
    first, second = Path(write_spec(only)), here / "elsewhere" / "tiny.yaml"
    second.parent.mkdir()
    second.write_text(only.replace("Does it run?", "And this?"))
    sweep(first)

    with pytest.raises(SparBenchError, match=r"'tiny' is also experiments/tiny\.yaml") as told:
        sweep(second)
    first.unlink()

    assert str(told.value).endswith("rename one of the files, or separate them with --store")
    assert sweep(second).unfinished == []


def test_seeds_that_are_left_out_again_are_told_of(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "spar_bench")
    path = Path(write_spec(UNTIMED + "sweep: [{set: {evaluate.methods: [pretrained]}}]\n"))

    sweep(path, Options(n_seeds=2))
    assert "not in the results" not in caplog.text
    sweep(path)

    assert "tiny: seeds of earlier sweeps are not in the results now: [1]" in caplog.text


def test_sweep_whose_results_cannot_be_saved_is_shown_as_interrupted(here: Path) -> None:
    path = Path(write_spec(UNTIMED + "sweep: [{set: {evaluate.methods: [pretrained]}}]\n"))
    Path(".spar_bench/results/tiny/results.json").mkdir(parents=True)

    with pytest.raises(StoreError, match="must be a writable folder"):
        sweep(path)

    assert sorted(status for _, status in runs()) == ["FINISHED", "KILLED"]
