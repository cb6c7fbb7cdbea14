"""The command `explain`: where numbers come from."""

import json
import re
import shutil
from pathlib import Path

import pytest

from spar_bench.run.inference import WINDOW_BATCH
from tests.cli.test_completion import completed
from tests.run.execute.test_failures import broken
from tests.small import TINY, copy_store, one_line, spar_bench, write_spec


def test_explain_tells_the_stage_of_every_number(in_swept: Path) -> None:
    results = json.loads(Path(".spar_bench/results/tiny/results.json").read_text())
    [row] = [row for row in results["rows"] if row["method"] == "student"]

    said = spar_bench("explain", "tiny/learning_rate=0.001").stdout

    student = said.split("\n\n")[1].splitlines()
    assert student[0] == "tiny/learning_rate=0.001,seed=0  student on patchwork at 72 px  finished"
    numbers = {line.split()[0]: line.split()[1:] for line in student[2:8]}
    stages = row["stages"]
    assert numbers["miou"] == [f"{row['miou']:.6g}", "evaluate", stages["evaluate"][:12]]
    assert numbers["gflops"] == [f"{row['cost']['gflops']:.6g}", "cost", stages["cost"][:12]]
    assert numbers["latency_p50_ms"][1:] == ["latency", stages["latency"][:12]]
    kinds = {line.split()[0] for line in student if line.startswith("  ") and line[2] != " "}
    assert kinds >= {"images", "targets", "student", "text", "evaluate", "cost", "latency"}
    [at] = [i for i, line in enumerate(student) if line.startswith("  targets ")]
    assert student[at + 1].endswith(f"), {WINDOW_BATCH['cpu']} windows at once")
    [at] = [i for i, line in enumerate(student) if line.startswith("  evaluate ")]
    assert student[at + 1].endswith(")")  # a single pass


def test_explain_tells_why_a_latency_does_not_stand_for_a_quiet_machine(
    here: Path, swept: Path
) -> None:
    copy_store(swept)
    path = Path(".spar_bench/results/tiny/results.json")
    results = json.loads(path.read_text())
    for row in results["rows"]:
        row["cost"]["latency_note"] = "others kept 1.3 of 2 cores busy"
    path.write_text(json.dumps(results))

    said = spar_bench("explain", "stride_px=32").stdout

    line = "  latency is as on a loaded machine: others kept 1.3 of 2 cores busy"
    assert line in said.splitlines()


def test_explain_says_what_was_not_measured_and_what_is_gone(here: Path, swept: Path) -> None:
    copy_store(swept)
    [latency] = Path(".spar_bench/stages/latency").iterdir()
    shutil.rmtree(latency)
    path = Path(".spar_bench/results/tiny/results.json")
    results = json.loads(path.read_text())
    for row in results["rows"]:
        row["cost"]["peak_mib"] = None
    path.write_text(json.dumps(results))

    said = spar_bench("explain", "stride_px=32").stdout

    assert re.search(r"peak_mib +not measured\n", said)
    assert f"{latency.name[:12]}  is no longer in the store" in said


def test_explain_of_an_unknown_trial_or_an_empty_store_is_one_line(here: Path, swept: Path) -> None:
    empty = spar_bench("explain", "stride_px=32", exits=2)
    copy_store(swept)
    unknown = spar_bench("explain", "tiny/stride_px=33", exits=2)

    assert "must hold a finished sweep" in one_line(empty)
    assert "did you mean 'tiny/stride_px=32'?" in one_line(unknown)


def test_explain_of_a_misspelt_trial_suggests_one_of_its_experiment_first(
    here: Path, swept: Path
) -> None:
    copy_store(swept)
    path = Path(".spar_bench/results/tiny/results.json")
    other = Path(".spar_bench/results/z/results.json")
    other.parent.mkdir()
    text = path.read_text().replace('"experiment": "tiny"', '"experiment": "z"')
    other.write_text(text.replace("stride_px=64", "stride_px=33"))

    for typed, meant in {
        "tiny/stride_px=33": "tiny/stride_px=32",
        "stride_px=3": "stride_px=33",
    }.items():
        told = one_line(spar_bench("explain", typed, exits=2))
        assert told.endswith(f"did you mean {meant!r}?")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rows": 3}', '{"rows": [{"a": 1}]}'])
def test_rows_that_cannot_be_read_are_one_line_and_leave_the_others_alone(
    here: Path, swept: Path, text: str
) -> None:
    copy_store(swept)
    damaged = Path(".spar_bench/results/other/results.json")
    damaged.parent.mkdir()
    damaged.write_text(text)

    unknown = spar_bench("explain", "other/stride_px=16", exits=2)

    assert one_line(unknown).startswith(f"{damaged.absolute()}: must hold the results of a sweep")
    assert "the next sweep of other rewrites it" in one_line(unknown)
    assert "tiny/stride_px=32" in spar_bench("explain", "stride_px=32").stdout
    assert completed("explain", "stride") == ["stride_px=32", "stride_px=64"]


def test_explain_shows_the_log_of_a_stage_that_failed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, "targets", MemoryError("too much"))
    spar_bench("sweep", write_spec(TINY), exits=1)

    said = spar_bench("explain", "learning_rate=0.001").stdout

    blocked = said.split("\n\n")[1]  # the student, whose targets failed
    [key] = [path.stem for path in Path(".spar_bench/failures").glob("*.log")]
    lines = blocked.splitlines()
    at = lines.index(f"  targets {key[:12]}")
    assert re.fullmatch(r"    failed \S+ on cpu .+ \(.+\)", lines[at + 1])
    assert lines[at + 2] == "    MemoryError: too much"
    assert lines[at + 3].endswith(f"failures/{key}.log:")
    assert re.fullmatch(r"    \| .*: stage .* failed", lines[at + 4])
    assert "    | Traceback (most recent call last):" in lines
    assert "    | MemoryError: too much" in lines


def test_log_of_a_stage_is_gone_once_it_is_finished(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        broken(patch, "targets", MemoryError("too much"))
        spar_bench("sweep", write_spec(TINY), exits=1)
    spar_bench("sweep", write_spec(TINY))

    assert list(Path(".spar_bench/failures").iterdir()) == []
    assert "MemoryError" not in spar_bench("explain", "learning_rate=0.001").stdout
