"""The command `plan`: what it shows of trials, stages and time."""

import re
from pathlib import Path

import pytest

from spar_bench.components.backbone import known_sizes
from spar_bench.inference import SINGLE_PASS
from spar_bench.plan.cost import image_flops
from spar_bench.spec.schema import BackboneSpec
from tests.small import HEAD, TIMED, TINY, UNTIMED, one_line, spar_bench, write_spec


def rows(said: str) -> dict[str, list[str]]:
    """Map the title of each stage of a printed plan to its other cells."""
    table = said.split("\nstage ")[1].splitlines()[1:-1]
    split = [re.split(r"  +", line) for line in table if line and "side by side" not in line]
    return {cells[0]: cells[1:] for cells in split}


def test_plan_names_stages_by_what_they_are_by_kind(here: Path) -> None:
    said = spar_bench("plan", write_spec(TINY)).stdout

    lines = said.splitlines()
    assert lines[0] == "tiny: Does it run?"
    assert "learning_rate=0.001,seed=0  pretrained, student       7      7" in said
    assert list(rows(said)) == [
        "text of 25 names",
        "teacher on patchwork at 72 px, windows, s = 64, w = 64",
        "teacher on patchwork at 72 px, windows, s = 32, w = 64",
        "pretrained on patchwork at 72 px, a single pass",
        "student on patchwork at 72 px, a single pass",
        "cost of windows, s = 64, w = 64 at 72x90 px",
        "cost of windows, s = 32, w = 64 at 72x90 px",
        "cost of a single pass at 72x90 px",
        "2 images, seed 0",
        "targets of a teacher, s = 32, w = 64",
        "student last 1 blocks, mse, seed 0",
    ]
    targets = rows(said)["targets of a teacher, s = 32, w = 64"]
    assert targets == ["to do", "1", "3", "0.823", "45.8 kB", "1 s"]
    total = r"3 trials, 11 stages, 11 to do: 3\.63 GFLOP, about 3\d s with start-up "
    assert re.match(total, lines[-1])
    assert re.search(r"as a probe found them: [\d.,]+ GFLOP/s\), 4\.2 MB in the store\.", lines[-1])


def test_stages_of_one_title_are_told_apart_by_their_trials(here: Path) -> None:
    said = spar_bench("plan", write_spec(TINY.replace("[1.0e-3]", "[1.0e-3, 1.0e-4]"))).stdout

    students = [title for title in rows(said) if title.startswith("student last")]
    assert students == [
        "student last 1 blocks, mse, seed 0 (learning_rate=0.001,seed=0)",
        "student last 1 blocks, mse, seed 0 (learning_rate=0.0001,seed=0)",
    ]


def test_fingerprints_are_shown_on_request_alone(in_swept: Path) -> None:
    [student] = Path(".spar_bench/stages/student").iterdir()

    plain, verbose = (spar_bench("plan", "tiny", *more).stdout for more in ([], ["--verbose"]))

    assert student.name[:12] not in plain
    assert rows(verbose)["student last 1 blocks, mse, seed 0"][-1] == student.name[:12]
    assert {title: cells[:-1] for title, cells in rows(verbose).items()} == rows(plain)


def test_plan_of_more_seeds_adds_students_alone(in_swept: Path) -> None:
    said = spar_bench("plan", "experiments/tiny.yaml", "--seeds", "3").stdout

    assert "5 trials, 23 stages, 8 to do" in said
    to_do = [title for title, cells in rows(said).items() if cells[0] == "to do"]
    assert [title for title in to_do if "seed=" not in title and "seed " not in title] == []


def test_plan_of_one_trial_has_its_stages_alone(here: Path) -> None:
    said = spar_bench("plan", write_spec(TIMED), "--only", "stride_px=32").stdout

    assert list(rows(said)) == [
        "text of 25 names",
        "teacher on patchwork at 72 px, windows, s = 32, w = 64",
        "cost of windows, s = 32, w = 64 at 72x90 px",
        "cost of windows, s = 32, w = 64 at 64x80 px",
        "latency of 2 ways to read an image",
    ]
    assert "1 trial, 5 stages, 5 to do" in said


def test_plan_for_another_device_states_its_speed_and_takes_less_time(here: Path) -> None:
    spec = write_spec(HEAD.replace("count: 2}]", "count: 48}]").replace("[72]", "[4096]"))

    here_, there = (spar_bench("plan", spec, *more).stdout.splitlines()[-1]
                    for more in ([], ["--assume", "h100"]))  # fmt: skip
    unknown = spar_bench("plan", spec, "--assume", "h10", exits=2)

    probed = r"22.4 PFLOP, about .* with start-up \(assuming \d+ cores, as a probe found them"
    assert re.search(probed, here_)
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


def test_plan_without_weights_and_data_lists_what_is_missing_and_goes_on(here: Path) -> None:
    said = spar_bench("plan", write_spec(UNREADY)).stdout

    missing = [line for line in said.splitlines() if line.startswith("missing: ")]
    assert len(missing) == 3
    assert missing[0].startswith("missing: backbone siglip2-b16-256: its weights must be in ")
    assert missing[1].startswith("missing: nothing: must be a folder of images")
    assert missing[2].startswith("missing: nowhere: must be a folder of images")
    assert "1 trial, " in said.splitlines()[-1]


def test_plan_takes_sizes_and_counts_from_data_files_where_images_are_missing(here: Path) -> None:
    spec = "evaluate: {datasets: [cityscapes], short_side_px: [512], methods: [pretrained]}\n"

    said = spar_bench("plan", write_spec(spec)).stdout

    read, priced = "pretrained on cityscapes at 512 px, a single pass", "cost of a single pass at"
    # 512x1024 px are 64x128 patches: 500 images of 8,192 tokens.
    flops = image_flops(known_sizes(BackboneSpec(name="patchwork")), SINGLE_PASS, (512, 1024),
                        n_queries=19)  # fmt: skip
    assert rows(said)[read][3] == f"{500 * flops / 1e9:,.0f}"
    assert any(title.startswith(f"{priced} 512x1024 px") for title in rows(said))


def test_plan_tells_the_mistakes_of_all_data_files_at_once(here: Path) -> None:
    Path("one.yaml").write_text("plugin: folder\nlogit_scal: 3")
    Path("two.yaml").write_text("plugin: nowhere")

    result = spar_bench("plan", write_spec("evaluate: {datasets: [one.yaml, two.yaml]}"), exits=2)

    first, second = sorted(result.stderr.splitlines())
    assert first.startswith("one.yaml: logit_scal: must be a known key")
    assert second.startswith("two.yaml: plugin: must name one of ")


def test_plan_says_how_much_memory_frozen_blocks_of_students_take(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = UNTIMED + "sweep: [{grid: {student.loss: [mse, l1]}}]\n"
    path = write_spec(text)

    whole = spar_bench("plan", path).output
    monkeypatch.setattr("spar_bench.stages.student.KEPT_BYTES", 1000)
    part = spar_bench("plan", path).output
    once = spar_bench("plan", write_spec(text.replace("epochs: 2", "epochs: 1"), "once")).output

    assert re.search(r"\n2 students side by side: .* takes [\d.]+ kB of memory\.\n", whole)
    assert re.search(r"memory, of which \d% are kept\.\n", part)
    assert "side by side" not in once
