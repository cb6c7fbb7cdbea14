"""The command `plan`: what it shows of trials, stages and time."""

import re
from pathlib import Path

from tests.small import HEAD, TIMED, TINY, one_line, spar_bench, write_spec


def rows(said: str) -> dict[str, list[str]]:
    """Map the title of each stage of a printed plan to its other cells."""
    return {
        cells[0]: cells[1:]
        for line in said.splitlines()
        if line.startswith("  ") and (cells := re.split(r"  +", line.strip()))
    }


def test_plan_names_stages_by_what_they_are_under_their_kinds(here: Path) -> None:
    said = spar_bench("plan", write_spec(TINY)).stdout

    lines = said.splitlines()
    assert lines[0] == "tiny: Does it run?"
    assert "learning_rate=0.001,seed=0  pretrained, student       7      7" in said
    assert [line for line in lines[8:-2] if not line.startswith(" ")] == [
        *("text", "evaluate", "cost", "images", "targets", "student"),
    ]
    assert list(rows(said)) == [
        "class names of patchwork",
        "teacher s = 64 on patchwork at 72 px",
        "teacher s = 32 on patchwork at 72 px",
        "pretrained on patchwork at 72 px",
        "student last_1_blocks, mse, seed 0 on patchwork at 72 px",
        "teacher s = 64 of 72x90 px",
        "teacher s = 32 of 72x90 px",
        "single pass of 72x90 px",
        "2 of patchwork, seed 0",
        "teacher s = 32, seed 0",
        "last_1_blocks, mse, seed 0",
    ]
    assert rows(said)["teacher s = 32, seed 0"] == ["to do", "1", "3", "0.823", "45.8 kB", "1 s"]
    assert "3 trials, 11 stages, 11 to do: 3.95 GFLOP, about 31 s with start-up " in lines[-1]
    assert "(assuming two cores of a laptop: 60 GFLOP/s), 4.2 MB in the store." in lines[-1]


def test_fingerprints_are_shown_on_request_alone(in_swept: Path) -> None:
    [student] = Path(".spar_bench/stages/student").iterdir()

    plain, verbose = (spar_bench("plan", "tiny", *more).stdout for more in ([], ["--verbose"]))

    assert student.name[:12] not in plain
    assert rows(verbose)["last_1_blocks, mse, seed 0"][-1] == student.name[:12]
    assert {title: cells[:-1] for title, cells in rows(verbose).items()} == rows(plain)


def test_plan_of_more_seeds_adds_students_alone(in_swept: Path) -> None:
    said = spar_bench("plan", "experiments/tiny.yaml", "--seeds", "3").stdout

    assert "5 trials, 23 stages, 8 to do" in said
    to_do = [title for title, cells in rows(said).items() if cells[0] == "to do"]
    assert [title for title in to_do if "seed" not in title] == []


def test_plan_of_one_trial_has_its_stages_alone(here: Path) -> None:
    said = spar_bench("plan", write_spec(TIMED), "--only", "stride_px=32").stdout

    assert list(rows(said)) == [
        "class names of patchwork",
        "teacher s = 32 on patchwork at 72 px",
        "teacher s = 32 of 72x90 px",
        "teacher s = 32 of 64x80 px",
        "2 arms in turns",
    ]
    assert "1 trial, 5 stages, 5 to do" in said


def test_plan_for_another_device_states_its_speed_and_takes_less_time(here: Path) -> None:
    spec = write_spec(HEAD.replace("count: 2}]", "count: 48}]").replace("[72]", "[4096]"))

    here_, there = (spar_bench("plan", spec, *more).stdout.splitlines()[-1]
                    for more in ([], ["--assume", "h100"]))  # fmt: skip
    unknown = spar_bench("plan", spec, "--assume", "h10", exits=2)

    assert "22.4 PFLOP, about 4.3 days with start-up (assuming two cores of a laptop" in here_
    assert re.search(r"22.4 PFLOP, about \d+ min with start-up \(assuming h100", there)
    assert "with start-up (assuming h100: 26,800 GFLOP/s, 395,600 in 16 bits)" in there
    assert "device: must be a known name, but got 'h10'; did you mean 'h100'?" in one_line(unknown)


def test_experiment_is_named_or_suggested(here: Path) -> None:
    write_spec(TINY, "strides")

    assert spar_bench("plan", "strides").stdout.startswith("strides: Does it run?")
    assert one_line(spar_bench("plan", "stride", exits=2)) == (
        "experiment: must be a known name, but got 'stride'; did you mean 'strides'?"
    )


UNREADY = """\
backbone: siglip2-b16-256
images: {source: {path: nowhere}}
evaluate: {datasets: [{path: nothing}]}
"""


def test_all_that_is_missing_is_reported_at_once(here: Path) -> None:
    told = spar_bench("plan", write_spec(UNREADY), exits=2).stderr.splitlines()

    assert len(told) == 3
    assert told[0].startswith("backbone siglip2-b16-256: its weights must be in ")
    assert "nowhere" in told[1]
    assert "nothing" in told[2]


def test_plan_tells_the_mistakes_of_all_data_files_at_once(here: Path) -> None:
    Path("one.yaml").write_text("plugin: folder\nlogit_scal: 3")
    Path("two.yaml").write_text("plugin: nowhere")

    result = spar_bench("plan", write_spec("evaluate: {datasets: [one.yaml, two.yaml]}"), exits=2)

    first, second = sorted(result.stderr.splitlines())
    assert first.startswith("one.yaml: logit_scal: must be a known key")
    assert second.startswith("two.yaml: plugin: must name one of ")
