"""The mirror in a real SQLite store: what is written, found again, completed, replaced, ended."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spar_bench.errors import StoreError
from spar_bench.results import Cost
from spar_bench.track import Mirror
from spar_bench.track.client import connect
from spar_bench.track.mirror import end_dead_runs
from tests.track.conftest import SPEC_HASH, dump, make_results, make_row, make_trial, mirror, query

ACTIVE = "lifecycle_stage = 'active'"


def run_status(uri: str) -> dict[str, str]:
    return dict(query(uri, f"SELECT name, status FROM runs WHERE {ACTIVE}"))


def metrics_of(uri: str, trial: str) -> dict[str, float]:
    rows = query(
        uri,
        "SELECT m.key, m.value FROM latest_metrics m JOIN runs r USING (run_uuid) "
        f"WHERE r.name = '{trial}' AND r.{ACTIVE}",
    )
    return dict(rows)


def test_trial_is_a_child_run_with_its_settings_metrics_and_times(uri: str, tmp_path: Path) -> None:
    mirror(uri, tmp_path, [make_trial()])

    parent, child = (
        query(uri, f"SELECT run_uuid FROM runs WHERE name LIKE '{name}'")[0][0]
        for name in ("stride 5bec5bec", "stride_px=28-s0")
    )
    tags = dict(query(uri, f"SELECT key, value FROM tags WHERE run_uuid = '{child}'"))
    assert tags["mlflow.parentRunId"] == parent
    assert (tags["spar.trial"], tags["spar.group"]) == ("stride_px=28-s0", "stride_px=28")
    assert tags["spar.seed"] == "0"
    times = query(uri, f"SELECT status, start_time, end_time FROM runs WHERE run_uuid = '{child}'")
    assert times == [("FINISHED", 1_000_000, 1_060_000)]
    params = dict(query(uri, f"SELECT key, value FROM params WHERE run_uuid = '{child}'"))
    assert params == {"teacher.stride_px": "28", "student.learning_rate": "0.001"}
    assert metrics_of(uri, "stride_px=28-s0") == {
        "miou": 0.5,
        "gflops": 13.2,
        "latency_p50_ms": 250.0,
        "n_windows": 88.0,
        "miou/teacher.patchwork.256": 0.5,
        "gflops/teacher.patchwork.256": 13.2,
        "latency_p50_ms/teacher.patchwork.256": 250.0,
        "train_loss": 2.25,
    }


def test_loss_curve_keeps_its_steps_and_times_in_long_runs_too(uri: str, tmp_path: Path) -> None:
    curve = [(step, 1 / step, 1_000_000 + step) for step in range(1, 2_346)]

    mirror(uri, tmp_path, [make_trial(curve=curve)])

    logged = query(uri, "SELECT step, value, timestamp FROM metrics WHERE key = 'train_loss'")
    assert sorted(logged) == curve


def test_mirroring_twice_changes_nothing(uri: str, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"png")
    trials = [
        make_trial(artifacts={"pictures/panel.png": picture}),
        make_trial(trial="b-s0", status="failed", reason="out of memory", rows=[], curve=[]),
    ]
    mirror(uri, tmp_path, trials)
    once = dump(uri)

    mirror(uri, tmp_path, trials)

    assert len(once["runs"]) == 3
    assert dump(uri) == once


def test_unchanged_trial_costs_no_call(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    mirror(uri, tmp_path, [make_trial()])
    sweep = Mirror(uri)
    sweep.start("stride", "question: ?\n", SPEC_HASH, {"backbone.name": "patchwork"})
    for name in ("create_run", "log_batch", "log_artifacts", "set_terminated", "set_tag"):
        monkeypatch.setattr(MlflowClient, name, None)

    sweep.record(make_trial())
    sweep.record(make_trial(started_ms=5_000_000, ended_ms=6_000_000))


def test_trial_cut_short_while_written_is_completed_without_double_points(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    cut = Mirror(uri)
    cut.start("stride", "", SPEC_HASH, {})
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_artifacts", None)
        with pytest.raises(TypeError):
            cut.record(make_trial())
    assert run_status(uri)["stride_px=28-s0"] == "RUNNING"
    _die(cut)

    mirror(uri, tmp_path, [make_trial()])

    assert run_status(uri)["stride_px=28-s0"] == "FINISHED"
    assert query(uri, "SELECT count(*) FROM runs") == [(2,)]
    assert query(uri, "SELECT count(*) FROM metrics WHERE key = 'train_loss'") == [(2,)]
    assert query(uri, "SELECT count(*) FROM metrics WHERE key = 'miou'") == [(1,)]


def test_failed_trial_says_why_until_it_is_tried_again(uri: str, tmp_path: Path) -> None:
    failed = make_trial(status="failed", reason="out of memory", rows=[], curve=[])
    mirror(uri, tmp_path, [failed], status="failed")
    before = run_status(uri)
    reason = query(uri, "SELECT value FROM tags WHERE key = 'spar.reason'")

    mirror(uri, tmp_path, [make_trial()])

    assert before == {"stride 5bec5bec": "FAILED", "stride_px=28-s0": "FAILED"}
    assert reason == [("out of memory",)]
    assert run_status(uri) == {"stride 5bec5bec": "FINISHED", "stride_px=28-s0": "FINISHED"}
    assert query(uri, "SELECT value FROM tags WHERE key = 'spar.reason'") == []
    assert query(uri, "SELECT count(*) FROM runs") == [(2,)]


def test_cost_measured_later_is_added_to_the_same_run(uri: str, tmp_path: Path) -> None:
    mirror(uri, tmp_path, [make_trial(rows=[make_row(cost=Cost())])])

    mirror(uri, tmp_path, [make_trial()])

    assert metrics_of(uri, "stride_px=28-s0")["gflops"] == 13.2
    assert query(uri, "SELECT count(*) FROM runs") == [(2,)]


@pytest.mark.parametrize(
    "changed",
    [
        {"params": {"teacher.stride_px": 12}},
        {"rows": [make_row(miou=0.25)]},
        {"rows": []},
        {"curve": [(1, 9.0, 2_000_000)]},
    ],
    ids=["a setting", "a number", "no number", "the curve"],
)
def test_run_that_says_what_its_trial_does_not_is_replaced(
    uri: str, tmp_path: Path, changed: dict[str, object]
) -> None:
    mirror(uri, tmp_path, [make_trial()])

    mirror(uri, tmp_path, [make_trial(**changed)])

    stages = query(uri, "SELECT lifecycle_stage FROM runs WHERE name = 'stride_px=28-s0'")
    assert sorted(stages) == [("active",), ("deleted",)]


def test_numbers_that_are_none_or_not_finite_are_left_out(uri: str, tmp_path: Path) -> None:
    cost = Cost(gflops=float("inf"), latency_p50_ms=float("nan"), n_windows=None)
    rows = [make_row(miou=float("nan"), cost=cost)]
    sweep = Mirror(uri)
    sweep.start("stride", "", SPEC_HASH, {})

    sweep.record(make_trial(rows=rows, curve=[(1, 2.0, 5), (2, float("nan"), 6)]))

    assert metrics_of(uri, "stride_px=28-s0") == {"train_loss": 2.0}


def test_artifacts_are_the_trials_files_its_settings_and_the_sweeps_results(
    uri: str, tmp_path: Path
) -> None:
    picture = tmp_path / "any name"
    picture.write_bytes(b"png")

    mirror(uri, tmp_path, [make_trial(artifacts={"pictures/panel.png": picture})])

    root = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts" / "stride"
    found = {path.relative_to(root).parts[2:]: path for path in root.rglob("*") if path.is_file()}
    assert set(found) == {
        ("pictures", "panel.png"),
        ("trial.json",),
        ("spec.yaml",),
        ("results.json",),
    }
    assert found["pictures", "panel.png"].read_bytes() == b"png"
    assert found["spec.yaml",].read_text() == "question: ?\n"


def test_parent_holds_mean_and_deviation_over_seeds(uri: str, tmp_path: Path) -> None:
    trials = [
        make_trial(
            trial=f"stride_px=28-s{seed}",
            seed=seed,
            rows=[make_row(seed=seed, method="student", miou=miou)],
        )
        for seed, miou in enumerate([0.25, 0.5, 0.75])
    ]

    mirror(uri, tmp_path, trials)

    name = "stride_px_28.student.patchwork.256"
    assert metrics_of(uri, "stride 5bec5bec") == {
        f"miou_mean/{name}": 0.5,
        f"miou_sd/{name}": 0.25,
    }


def test_sweep_is_running_while_it_runs_and_killed_when_stopped(uri: str, tmp_path: Path) -> None:
    sweep = Mirror(uri)
    sweep.start("stride", "", SPEC_HASH, {})
    running = run_status(uri)

    sweep.finish(tmp_path / "nothing yet", "killed")

    assert running == {"stride 5bec5bec": "RUNNING"}
    assert run_status(uri) == {"stride 5bec5bec": "KILLED"}


def test_run_of_a_dead_sweep_is_ended_by_the_next_of_any_experiment(
    uri: str, tmp_path: Path
) -> None:
    dead = Mirror(uri)
    dead.start("window", "", SPEC_HASH, {})
    _die(dead)

    mirror(uri, tmp_path, [make_trial()])

    assert run_status(uri)["window 5bec5bec"] == "KILLED"


def test_run_of_a_live_sweep_is_left_running(uri: str, tmp_path: Path) -> None:
    live = Mirror(uri)
    live.start("window", "", SPEC_HASH, {})

    mirror(uri, tmp_path, [make_trial()])

    assert run_status(uri)["window 5bec5bec"] == "RUNNING"
    live.finish(tmp_path, "killed")


def test_sweep_that_ends_while_the_dead_are_looked_for_stays_finished(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    make_results([make_row()]).save(tmp_path / "results")
    live = Mirror(uri)
    live.start("window", "", SPEC_HASH, {})
    search = MlflowClient.search_runs

    def ends_after(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        found = search(*args, **kwargs)
        live.finish(tmp_path / "results", "finished")
        return found

    monkeypatch.setattr(MlflowClient, "search_runs", ends_after)
    ended = end_dead_runs(connect(uri), uri)

    assert ended == 0
    assert run_status(uri)["window 5bec5bec"] == "FINISHED"


def test_second_process_on_a_spec_writes_only_when_the_first_is_gone(
    uri: str, tmp_path: Path
) -> None:
    first, second = Mirror(uri), Mirror(uri)
    for sweep in (first, second):
        sweep.start("stride", "", SPEC_HASH, {})
    first.record(make_trial())
    second.record(make_trial())
    second.record(make_trial(trial="b-s0"))
    while_first_lives = run_status(uri)
    _die(first)

    second.record(make_trial(trial="c-s0"))

    assert set(while_first_lives) == {"stride 5bec5bec", "stride_px=28-s0"}
    assert set(run_status(uri)) == {"stride 5bec5bec", "stride_px=28-s0", "b-s0", "c-s0"}
    assert query(uri, "SELECT count(*) FROM runs") == [(4,)]


def test_waiting_for_the_first_process_to_end_its_run_can_be_interrupted(
    uri: str, tmp_path: Path
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    first, second = Mirror(uri), Mirror(uri, poll=stop)
    for sweep in (first, second):
        sweep.start("stride", "", SPEC_HASH, {})

    with pytest.raises(KeyboardInterrupt):
        second.finish(tmp_path, "finished")

    first.finish(tmp_path, "killed")


def test_experiment_deleted_by_hand_is_brought_back(uri: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    mirror(uri, tmp_path, [make_trial()])
    client = MlflowClient(uri)
    client.delete_experiment(client.get_experiment_by_name("stride").experiment_id)

    mirror(uri, tmp_path, [make_trial()])

    assert query(uri, "SELECT name FROM experiments WHERE " + ACTIVE) == [("Default",), ("stride",)]
    assert len(run_status(uri)) == 2


def test_changed_settings_of_the_whole_sweep_start_new_runs(uri: str, tmp_path: Path) -> None:
    mirror(uri, tmp_path, [make_trial()])

    sweep = Mirror(uri)
    sweep.start("stride", "", SPEC_HASH, {"backbone.name": "another"})
    sweep.record(make_trial())

    assert query(uri, f"SELECT count(*) FROM runs WHERE {ACTIVE}") == [(2,)]
    assert query(uri, "SELECT count(*) FROM runs") == [(4,)]


def test_very_long_setting_is_cut_the_same_way_every_time(uri: str, tmp_path: Path) -> None:
    trial = make_trial(params={"evaluate.templates": ["a photo of a {}."] * 1000})
    mirror(uri, tmp_path, [trial])
    once = dump(uri)

    mirror(uri, tmp_path, [replace(trial, reason="noted")])

    assert sorted(len(value) for _, value, _ in once["params"]) == [len("patchwork"), 5000]
    assert dump(uri)["params"] == once["params"]


def test_store_that_fails_in_the_middle_is_one_line(uri: str, tmp_path: Path) -> None:
    sweep = Mirror(uri)
    sweep.start("stride", "", SPEC_HASH, {})
    query(uri, "DROP TABLE params")

    with pytest.raises(StoreError) as caught:
        sweep.record(make_trial())

    assert "\n" not in str(caught.value)
    assert "no such table: params" in str(caught.value)


def _die(sweep: Mirror) -> None:
    """Do what the kernel does for a killed process: free its locks."""
    assert sweep._lock is not None
    sweep._lock.release(force=True)
