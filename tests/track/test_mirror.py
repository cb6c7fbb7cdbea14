"""The mirror in a real SQLite store: what is written, found again, completed, replaced, ended."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spar_bench.errors import StoreError
from spar_bench.results import Cost
from spar_bench.track import Mirror
from spar_bench.track.client import connect
from spar_bench.track.mirror import end_dead_runs
from tests.track.conftest import (
    SPEC_HASH,
    die,
    dump,
    make_ending,
    make_record,
    make_row,
    make_sweep,
    mirror,
    query,
)

ACTIVE = "lifecycle_stage = 'active'"
PARENT = "stride 5bec5bec"


def run_status(uri: str) -> dict[str, str]:
    return dict(query(uri, f"SELECT name, status FROM runs WHERE {ACTIVE}"))


def n_runs(uri: str) -> int:
    return int(query(uri, "SELECT count(*) FROM runs")[0][0])


def metrics_of(uri: str, name: str) -> dict[str, float]:
    rows = query(
        uri,
        "SELECT m.key, m.value FROM latest_metrics m JOIN runs r USING (run_uuid) "
        f"WHERE r.name = '{name}' AND r.{ACTIVE}",
    )
    return dict(rows)


def test_method_of_a_trial_is_a_child_run_with_its_settings_metrics_and_times(uri: str) -> None:
    mirror(uri, make_record(seed=0))

    parent, child = (
        query(uri, f"SELECT run_uuid FROM runs WHERE name = '{name}'")[0][0]
        for name in (PARENT, "stride_px=28")
    )
    tags = dict(query(uri, f"SELECT key, value FROM tags WHERE run_uuid = '{child}'"))
    assert tags["mlflow.parentRunId"] == parent
    assert (tags["spar.trial"], tags["spar.group"]) == ("stride_px=28", "stride_px=28")
    assert (tags["spar.method"], tags["spar.seed"]) == ("teacher", "0")
    times = query(uri, "SELECT name, status, start_time, end_time FROM runs ORDER BY start_time")
    assert times == [
        (PARENT, "FINISHED", 900_000, 1_100_000),
        ("stride_px=28", "FINISHED", 1_000_000, 1_060_000),
    ]
    params = dict(query(uri, f"SELECT key, value FROM params WHERE run_uuid = '{child}'"))
    assert params == {
        "method": "teacher",
        "seed": "0",
        "teacher.stride_px": "28",
        "student.learning_rate": "0.001",
    }
    assert metrics_of(uri, "stride_px=28") == {
        "miou": 0.5,
        "gflops": 13.2,
        "latency_p50_ms": 250.0,
        "n_windows": 88.0,
        "miou/patchwork.256": 0.5,
        "gflops/patchwork.256": 13.2,
        "latency_p50_ms/patchwork.256": 250.0,
        "train_loss": 2.25,
    }


def test_loss_curve_keeps_its_steps_and_times_in_long_runs_too(uri: str) -> None:
    curve = [(step, 1 / step, 1_000_000 + step) for step in range(1, 2_346)]

    mirror(uri, make_record(curve=curve))

    logged = query(uri, "SELECT step, value, timestamp FROM metrics WHERE key = 'train_loss'")
    assert sorted(logged) == curve


def test_the_end_of_a_sweep_says_where_its_runs_are(uri: str) -> None:
    a, b, gone = (make_record(name=name) for name in ("a", "b", "gone"))
    mirror(uri, a, gone)

    sweep = Mirror(uri, make_sweep())
    sweep.record([a, b])
    shown = sweep.end(make_ending([a, b]))

    names = dict(query(uri, f"SELECT run_uuid, name FROM runs WHERE {ACTIVE}"))
    assert shown is not None
    assert {key: names[run_id] for key, run_id in shown.runs.items()} == {"a": "a", "b": "b"}
    experiments = query(uri, "SELECT experiment_id FROM experiments WHERE name = 'stride'")
    assert experiments == [(int(shown.experiment_id),)]
    assert shown.server == ""


def test_mirroring_twice_changes_nothing(uri: str, tmp_path: Path) -> None:
    picture = tmp_path / "panel.png"
    picture.write_text("png")
    records = [
        make_record(artifacts={"panel.png": picture}),
        make_record(name="b", status="failed", reason="out of memory", rows=[], curve=[]),
    ]
    mirror(uri, *records)
    once = dump(uri)

    mirror(uri, *records)

    assert len(once["runs"]) == 3
    assert dump(uri) == once


def test_unchanged_record_costs_no_call_and_is_not_read(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    mirror(uri, make_record())
    sweep = Mirror(uri, make_sweep())
    sweep.record([])
    for name in ("create_run", "log_batch", "log_artifacts", "set_terminated", "set_tag"):
        monkeypatch.setattr(MlflowClient, name, None)

    assert sweep.record([replace(make_record(), read=unread)])


def test_cost_measured_later_is_added_to_the_same_run_without_its_files(
    uri: str, tmp_path: Path
) -> None:
    picture = tmp_path / "panel.png"
    picture.write_text("png")
    record = make_record(artifacts={"panel.png": picture}, rows=[make_row(cost=Cost())])
    mirror(uri, record)
    picture.unlink()

    mirror(uri, replace(record, rows=[make_row()], read=unread))

    assert metrics_of(uri, "stride_px=28")["gflops"] == 13.2
    assert query(uri, "SELECT end_time FROM runs WHERE name = 'stride_px=28'") == [(1_060_000,)]
    assert n_runs(uri) == 2


def unread() -> Any:
    raise AssertionError("what is shown already was read again")


def test_record_that_shares_its_run_with_one_shown_before_changes_nothing(uri: str) -> None:
    mirror(uri, make_record(), make_record(name="stride_px=28 again", key="teacher28"))

    assert set(run_status(uri)) == {PARENT, "stride_px=28"}


@pytest.mark.parametrize("method", ["create_run", "log_batch", "log_artifacts", "set_terminated"])
def test_run_whose_writing_failed_after_it_reached_the_store_is_completed_and_not_doubled(
    uri: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    from mlflow.tracking import MlflowClient

    sweep = Mirror(uri, make_sweep())
    sweep.record([])
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, method, without_an_answer(getattr(MlflowClient, method)))
        with pytest.raises(StoreError, match="no space"):
            sweep.record([make_record()])
    assert run_status(uri)["stride_px=28"] in ("RUNNING", "FINISHED")

    sweep.record([make_record()])
    sweep.end(make_ending([make_record()]))

    assert run_status(uri) == {PARENT: "FINISHED", "stride_px=28": "FINISHED"}
    assert n_runs(uri) == 2
    assert query(uri, "SELECT count(*) FROM metrics WHERE key = 'train_loss'") == [(2,)]
    assert query(uri, "SELECT count(*) FROM metrics WHERE key = 'miou'") == [(1,)]
    assert query(uri, "SELECT end_time FROM runs WHERE name = 'stride_px=28'") == [(1_060_000,)]


def test_sweep_whose_creation_was_not_answered_is_found_again(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    sweep = Mirror(uri, make_sweep())
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_run", without_an_answer(MlflowClient.create_run))
        with pytest.raises(StoreError, match="no space"):
            sweep.record([make_record()])

    mirror(uri, make_record())

    assert run_status(uri) == {PARENT: "FINISHED", "stride_px=28": "FINISHED"}
    assert n_runs(uri) == 2
    assert query(uri, "SELECT value FROM params WHERE key = 'seeds'") == [("[0]",)]


def without_an_answer(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call that does its work, and then fails."""

    def fail(*args: Any, **kwargs: Any) -> None:
        call(*args, **kwargs)
        raise OSError("no space left on device")

    return fail


def test_run_that_an_earlier_release_left_twice_is_kept_once(uri: str) -> None:
    mirror(uri, make_record())
    client = connect(uri)
    for key in ({}, {"spar.key": "teacher28"}):
        client.create_run("1", run_name="double", tags={"spar.spec": SPEC_HASH} | key)

    mirror(uri, make_record())

    assert run_status(uri) == {PARENT: "FINISHED", "stride_px=28": "FINISHED"}


def test_failed_record_says_why_until_it_is_tried_again(uri: str) -> None:
    failed = make_record(status="failed", reason="out of memory", rows=[], curve=[])
    mirror(uri, failed, status="failed")
    before = run_status(uri)
    reason = query(uri, "SELECT value FROM tags WHERE key = 'spar.reason'")

    mirror(uri, make_record())

    assert before == {PARENT: "FAILED", "stride_px=28": "FAILED"}
    assert reason == [("out of memory",)]
    assert run_status(uri) == {PARENT: "FINISHED", "stride_px=28": "FINISHED"}
    assert query(uri, "SELECT value FROM tags WHERE key = 'spar.reason'") == []
    assert n_runs(uri) == 2


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
def test_run_that_contradicts_its_record_is_replaced(uri: str, changed: dict[str, Any]) -> None:
    mirror(uri, make_record())

    mirror(uri, make_record(**changed))

    stages = query(uri, "SELECT lifecycle_stage FROM runs WHERE name = 'stride_px=28'")
    assert sorted(stages) == [("active",), ("deleted",)]


def test_run_that_the_sweep_has_no_longer_is_deleted_but_not_one_that_it_only_skips(
    uri: str,
) -> None:
    old, skipped, new = (make_record(name=name) for name in ("old", "skipped", "new"))
    mirror(uri, old, skipped)

    mirror(uri, new, keys={"skipped", "new"})

    assert set(run_status(uri)) == {PARENT, "skipped", "new"}


def test_numbers_that_are_none_or_not_finite_are_left_out(uri: str) -> None:
    cost = Cost(gflops=float("inf"), latency_p50_ms=float("nan"), n_windows=None)
    rows = [make_row(miou=float("nan"), cost=cost)]

    mirror(uri, make_record(rows=rows, curve=[(1, 2.0, 5), (2, float("nan"), 6)]))

    assert metrics_of(uri, "stride_px=28") == {"train_loss": 2.0}


def test_artifacts_are_the_runs_files_its_settings_and_the_sweeps_files(
    uri: str, tmp_path: Path
) -> None:
    picture = tmp_path / "any name"
    picture.write_text("png")

    mirror(uri, make_record(artifacts={"panel.png": picture}))

    root = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts" / "stride"
    found = {path.name: path for path in root.rglob("*") if path.is_file()}
    assert set(found) == {"panel.png", "trial.json", "rows.txt"}
    assert found["panel.png"].read_text() == "png"


def test_parent_holds_mean_and_deviation_over_seeds(uri: str) -> None:
    records = [
        make_record(
            name=f"stride_px=28,seed={seed}",
            rows=[make_row(seed=seed, method="student", miou=miou)],
        )
        for seed, miou in enumerate([0.25, 0.5, 0.75])
    ]

    mirror(uri, *records)

    name = "stride_px:28.student.patchwork.256"
    assert metrics_of(uri, PARENT) == {f"miou_mean/{name}": 0.5, f"miou_sd/{name}": 0.25}


def test_sweep_is_running_while_it_runs_and_killed_when_stopped(uri: str) -> None:
    sweep = Mirror(uri, make_sweep())
    sweep.record([make_record()])
    running = run_status(uri)

    sweep.interrupt()

    assert running == {PARENT: "RUNNING", "stride_px=28": "FINISHED"}
    assert run_status(uri) == {PARENT: "KILLED", "stride_px=28": "FINISHED"}


def test_run_of_a_dead_sweep_is_ended_by_the_next_of_any_experiment(uri: str) -> None:
    dead = Mirror(uri, make_sweep("window"))
    dead.record([])
    die(dead, uri)

    mirror(uri, make_record())

    assert run_status(uri)["window 5bec5bec"] == "KILLED"


def test_run_of_a_live_sweep_is_left_running(uri: str) -> None:
    live = Mirror(uri, make_sweep("window"))
    live.record([])

    mirror(uri, make_record())

    assert run_status(uri)["window 5bec5bec"] == "RUNNING"
    live.interrupt()


def test_sweep_that_ends_while_the_dead_are_looked_for_stays_finished(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    live = Mirror(uri, make_sweep("window"))
    live.record([])
    search = MlflowClient.search_runs

    def ends_after(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        found = search(*args, **kwargs)
        live.end(make_ending([]))
        return found

    monkeypatch.setattr(MlflowClient, "search_runs", ends_after)
    ended = end_dead_runs(connect(uri), uri)

    assert ended == 0
    assert run_status(uri)["window 5bec5bec"] == "FINISHED"


def test_second_process_on_a_sweep_writes_only_when_the_first_is_gone(uri: str) -> None:
    first, second = Mirror(uri, make_sweep()), Mirror(uri, make_sweep())
    first.record([make_record()])

    is_shown = second.record([make_record(name="b")]), second.end(make_ending([]))
    while_first_lives = run_status(uri)
    die(first, uri)

    assert is_shown == (False, None)
    assert while_first_lives == {PARENT: "RUNNING", "stride_px=28": "FINISHED"}
    assert second.record([make_record(name="b")])
    assert set(run_status(uri)) == {PARENT, "stride_px=28", "b"}


def test_experiment_deleted_by_hand_is_brought_back(uri: str) -> None:
    mirror(uri, make_record())
    client = connect(uri)
    client.delete_experiment(client.get_experiment_by_name("stride").experiment_id)

    mirror(uri, make_record())

    assert query(uri, "SELECT name FROM experiments WHERE " + ACTIVE) == [("Default",), ("stride",)]
    assert len(run_status(uri)) == 2


def test_very_long_setting_is_cut_the_same_way_every_time(uri: str) -> None:
    record = make_record(params={"evaluate.templates": ["a photo of a {}."] * 1000})
    mirror(uri, record)
    once = dump(uri)

    mirror(uri, replace(record, reason="noted"))

    assert sorted(len(value) for _, value, _ in once["params"]) == [3, len("teacher"), 5000]
    assert dump(uri)["params"] == once["params"]


def test_store_that_fails_in_the_middle_is_one_line(uri: str) -> None:
    sweep = Mirror(uri, make_sweep())
    sweep.record([])
    query(uri, "DROP TABLE params")

    with pytest.raises(StoreError) as caught:
        sweep.record([make_record()])

    assert "\n" not in str(caught.value)
    assert "no such table: params" in str(caught.value)


def test_note_links_to_the_view_without_losing_what_a_user_wrote(uri: str) -> None:
    mirror(uri, make_record())
    client = connect(uri)
    note = client.get_experiment("1").tags["mlflow.note.content"]
    client.set_experiment_tag("1", "mlflow.note.content", f"Mine.\n{note}\nMine, too.")

    mirror(uri, make_record())

    assert note.startswith("[Table and charts of the newest sweep](#/experiments/1/runs?")
    assert client.get_experiment("1").tags["mlflow.note.content"] == f"Mine.\n{note}\nMine, too."
    parent = client.search_runs(["1"], f"attributes.run_name = '{PARENT}'")[0]
    assert parent.data.tags["mlflow.note.content"].endswith("viewStateShareKey=spar-5bec5bec)")


def test_nothing_is_connected_to_before_the_first_record(tmp_path: Path) -> None:
    sweep = Mirror(f"sqlite:///{tmp_path}/mlflow.db", make_sweep())

    sweep.interrupt()

    assert list(tmp_path.iterdir()) == []
