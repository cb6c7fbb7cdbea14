"""`sweep` as typed on the command line: its output, its exit code, and what it leaves behind."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from spar_bench.cli.stopping import Stopper
from spar_bench.results import Results
from spar_bench.store import Store
from tests.small import (
    DIVERGING,
    TINY,
    UNTIMED,
    copy_store,
    one_line,
    runs,
    spar_bench,
    write_spec,
)


def rows_of(name: str = "tiny") -> dict[tuple[str, str], float | None]:
    """Return the mIoU of each row of the store's results."""
    rows = Results.load(Path(".spar_bench/results", name)).rows
    return {(row.trial, row.method): row.miou for row in rows}


def files_of(kind: str, name: str) -> list[Path]:
    """Return the files of that name in finished stages of a kind."""
    return sorted(Path(".spar_bench/stages", kind).glob(f"*/{name}"))


def test_sweep_finishes_every_row_and_shows_each_method_once_in_mlflow(here: Path) -> None:
    spec = write_spec(TINY)

    result = spar_bench("sweep", spec)

    said = "tiny: 3 of 3 trials finished, 11 stages made now. Next: spar-bench report tiny\n"
    assert result.stdout == said
    assert all(miou is not None for miou in rows_of().values())
    names = ["learning_rate=0.001,seed=0", "stride_px=32", "stride_px=64"]
    assert [run for run in runs() if run[0] in names] == [(name, "FINISHED") for name in names]
    assert [status for _, status in runs()] == ["FINISHED"] * 5


def test_finished_sweep_makes_nothing_again_wherever_its_store_is_moved(
    here: Path, swept: Path
) -> None:
    spec = copy_store(swept)
    before = rows_of()

    result = spar_bench("sweep", spec)

    assert "3 of 3 trials finished, 0 stages made now" in result.stdout
    assert result.stderr == f"reading {spec}\n"
    assert rows_of() == before


def test_ctrl_c_before_the_first_stage_exits_130_and_makes_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, stopper = write_spec(TINY), Stopper()

    def stopped(path: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopper.event.wait(60)

    monkeypatch.setattr("spar_bench.cli.stopping.Stopper", lambda: stopper)
    monkeypatch.setattr("spar_bench.conflicts.read_spec", stopped)
    result = spar_bench("sweep", spec, exits=130)

    assert result.stderr.splitlines()[0] == f"reading {spec}"
    assert "run the same command to resume" in result.stderr
    assert not Path(".spar_bench").exists()


def test_unknown_trial_is_refused_before_anything_is_made(here: Path) -> None:
    result = spar_bench("sweep", write_spec(TINY), "--only", "stride_px=23", exits=2)

    assert (
        "trial: must be a known name, but got 'stride_px=23'; did you mean 'stride_px=32'?"
        in one_line(result)
    )
    assert runs() == []
    assert list(Store(Path(".spar_bench")).finished()) == []


def test_only_the_trial_named_is_run(here: Path) -> None:
    result = spar_bench("sweep", write_spec(TINY), "--only", "stride_px=64")

    assert "1 of 3 trials finished, 3 stages made now" in result.stdout
    assert {trial for (trial, _), miou in rows_of().items() if miou is not None} == {"stride_px=64"}


def test_dry_run_shows_the_plan_of_the_trials_named_and_makes_nothing(here: Path) -> None:
    result = spar_bench("sweep", write_spec(TINY), "--dry-run", "--only", "stride_px=64")

    assert "1 trial, 3 stages, 3 to do" in result.stdout
    assert "stride_px=32" not in result.stdout
    assert list(Store(Path(".spar_bench")).finished()) == []


def test_diverged_student_is_told_and_the_sweep_goes_on(here: Path) -> None:
    spec = write_spec(DIVERGING)

    first = spar_bench("sweep", spec, exits=1)
    second = spar_bench("sweep", spec, exits=1)
    retried = spar_bench("sweep", spec, "--retry", exits=1)

    reason = "failed: learning_rate=1e+30,seed=0: student: the loss must stay finite, but is nan"
    assert reason in first.stderr
    assert "tiny: 1 of 2 trials finished, 6 stages made now" in first.stdout
    assert ("started student" in second.stderr, reason in second.stderr) == (False, True)
    assert ("started student" in retried.stderr, reason in retried.stderr) == (True, True)
    assert [s for n, s in runs() if n.startswith("learning_rate")] == ["FINISHED", "FAILED"]
    assert "learning_rate=1e+30,seed=0: student: the loss" in spar_bench("status", spec).stdout
    assert "2 trials, 8 stages, 0 to do" in spar_bench("plan", spec).stdout


def test_sweep_of_which_nothing_finished_leads_to_no_report(here: Path) -> None:
    spec = write_spec(DIVERGING.replace(", 1.0e-3", ""))

    result = spar_bench("sweep", spec, exits=1)
    reported = spar_bench("report", "tiny", exits=2)

    advice = f"fix what failed, then run spar-bench sweep {spec} again"
    said = f"tiny: 0 of 1 trial finished, 4 stages made now. Next: {advice}\n"
    assert result.stdout == said
    assert one_line(reported).startswith(
        "tiny: must have a finished trial to report, but none of 1 is; spar-bench status says why"
    )
    assert not Path("reports").exists()


def test_fail_fast_makes_nothing_after_the_first_failure(here: Path) -> None:
    result = spar_bench("sweep", write_spec(DIVERGING), "--fail-fast", exits=1)

    assert "0 of 2 trials finished" in result.stdout
    assert files_of("evaluate", "manifest.json") == []


@pytest.mark.parametrize("name", ["counts.safetensors", "manifest.json"])
def test_altered_file_is_found_and_made_anew(here: Path, swept: Path, name: str) -> None:
    spec = copy_store(swept)
    before = rows_of()
    path = files_of("evaluate", name)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    found = spar_bench("cache", "verify", exits=1)
    mended = spar_bench("sweep", spec)
    whole = spar_bench("cache", "verify")

    assert f"{path.absolute()}: must be as it was written, but" in found.stderr
    assert "14 stages intact, 1 damaged" in found.stdout
    assert f"damaged evaluate {path.parent.name[:12]}" in mended.stderr
    assert "1 stage made now" in mended.stdout
    assert rows_of() == before
    assert whole.stdout == "15 stages intact, 0 damaged\n"


def test_truncated_targets_are_mended_where_a_new_student_reads_them(
    here: Path, swept: Path
) -> None:
    copy_store(swept)
    path = files_of("targets", "000001.safetensors")[0]
    path.write_bytes(path.read_bytes()[:-3])
    text = "sweep:\n  - {set: {student.learning_rate: 2.0e-3, evaluate.methods: [student]}}\n"

    result = spar_bench("sweep", write_spec(UNTIMED + text, "other"))

    assert f"damaged targets {path.parent.name[:12]}" in result.stderr
    assert "1 of 1 trial finished, 3 stages made now" in result.stdout


def test_full_disk_is_one_line_and_loses_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_spec(TINY)
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if files_of("images", "manifest.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("spar_bench.files.os.replace", replace)
        stopped = spar_bench("sweep", spec, exits=2)
    resumed = spar_bench("sweep", spec)

    assert "the disk is full; finished work is kept" in stopped.stderr.splitlines()[-1]
    assert "Traceback" not in stopped.stderr
    assert "3 of 3 trials finished" in resumed.stdout
    assert {status for _, status in runs()} == {"FINISHED"}


def test_pruned_student_is_trained_where_a_grid_asks_for_it(here: Path, swept: Path) -> None:
    spec = copy_store(swept)
    store = Store(Path(".spar_bench"))
    by_kind = {stage.manifest["kind"]: stage for stage in store.finished()}
    student = by_kind["student"].fingerprint
    for stage in list(store.finished()):
        if student in (stage.fingerprint, *stage.manifest["inputs"].values()):
            store.discard(stage.fingerprint)
    note = {"reason": "pruned by the search", "outcome": "pruned", "final": True, "at_ms": 0}
    Path(".spar_bench/failures", f"{student}.json").write_text(json.dumps(note))

    result = spar_bench("sweep", spec)

    assert "3 of 3 trials finished, 2 stages made now" in result.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_device_that_is_not_there_is_one_line(here: Path) -> None:
    result = spar_bench("sweep", write_spec(TINY), "--device", "cuda", exits=2)

    assert "device: must be one that torch can use here, but got 'cuda'" in one_line(result)
    assert runs() == []


def test_more_threads_than_the_machine_can_run_are_refused_in_one_line(here: Path) -> None:
    swept = spar_bench("sweep", write_spec(TINY), "--threads", "100000", exits=2)

    assert one_line(swept).startswith("--threads: must be 1 to ")
    assert runs() == []


@pytest.mark.parametrize("command", ["check", "plan", "status", "sweep"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("folder", None), ("latin.yaml", b"question: caf\xe9"), ("none.yaml", b"")],
)
def test_spec_that_is_no_text_file_is_one_line(
    here: Path, command: str, name: str, content: bytes | None
) -> None:
    if content is None:
        Path(name).mkdir()
    elif content:
        Path(name).write_bytes(content)

    result = spar_bench(command, name, exits=2)

    assert one_line(result).startswith(name)


def test_missing_data_is_one_line_before_anything_is_made(here: Path) -> None:
    spec = write_spec("evaluate: {datasets: [{path: nowhere}], methods: [pretrained]}\n")

    swept, listed = spar_bench("sweep", spec, exits=2), spar_bench("check", spec)
    asked = spar_bench("check", spec, "--ready", exits=2)

    assert "nowhere" in one_line(swept)
    assert "1 missing:" in listed.stdout
    assert "--ready: weights and data must be there, but 1 of them" in one_line(asked)
    assert runs() == []
