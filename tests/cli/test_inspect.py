"""The commands that run nothing: what they print, and that they import little."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from spar_bench.cli import main
from spar_bench.cli.options import size, span, table
from tests.small import TINY, copy_store, one_line, spar_bench, write_spec

HEAVY = ["torch", "open_clip", "timm", "mlflow", "optuna", "pandas", "matplotlib", "scipy"]


def completed(*line: str) -> list[str]:
    """Return the shell's completions for the last word of a command line."""
    shell = ShellComplete(main, {}, "spar-bench", "_SPAR_BENCH_COMPLETE")
    return [item.value for item in shell.get_completions(list(line[:-1]), line[-1])]


def test_looking_loads_nothing_heavy(in_swept: Path) -> None:
    code = f"""
import sys
from spar_bench.cli import main
for line in ["--help", "check {{}}", "plan {{}}", "sweep --dry-run {{}}", "status",
             "explain stride_px=32", "cache ls", "cache verify", "cache gc", "backbones",
             "datasets", "losses", "refiners", "completion bash", "init new/spec.yaml"]:
    try:
        main(line.format("experiments/tiny.yaml").split(), standalone_mode=False)
    except SystemExit as end:
        assert not end.code, line
print(*sorted({set(HEAVY)} & set(sys.modules)), file=sys.stderr)
"""

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    shutil.rmtree("new")

    assert (result.returncode, result.stderr.strip()) == (0, "")


def test_help_of_every_command_is_there() -> None:
    for name, command in main.commands.items():
        assert command.help, name
        assert spar_bench(name, "--help").stdout.startswith("Usage:")


def test_help_loads_none_of_our_parts_that_load_others() -> None:
    code = (
        "import sys, spar_bench.cli; print(*[m for m in sys.modules if m.startswith('pydantic')])"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (result.stdout.strip(), result.stderr) == ("", "")


def test_plan_shows_trials_stages_and_totals(here: Path) -> None:
    said = spar_bench("plan", write_spec(TINY)).stdout

    assert said.splitlines()[0] == "tiny: Does it run?"
    assert "learning_rate=0.001,seed=0  pretrained, student       7      7" in said
    assert "3 trials, 11 stages, 11 to do" in said
    assert "a guess: nothing measured here yet" in said


def test_plan_counts_the_trials_of_timings_and_of_costs_at_further_sizes(in_swept: Path) -> None:
    said = spar_bench("plan", "experiments/tiny.yaml").stdout
    rows = [line.split() for line in said.splitlines()]

    counted = [(row[0], row[3]) for row in rows if row and row[0] in ("cost", "latency")]
    assert sorted(counted) == [("cost", "1")] * 6 + [("latency", "3")]


def test_plan_of_more_seeds_adds_students_alone(
    in_swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spar_bench.plan.estimate.TELLING_GFLOPS", 1e-9)
    said = spar_bench("plan", "experiments/tiny.yaml", "--seeds", "3").stdout

    assert "5 trials, 23 stages, 8 to do" in said
    assert "speeds measured here" in said


def test_status_counts_trials_of_every_spec(in_swept: Path) -> None:
    said = spar_bench("status").stdout.splitlines()

    assert said[0].split() == ["experiment", "trials", "finished", "failed", "pruned", "to", "do"]
    assert said[1].split() == ["tiny", "3", "3", "0", "0", "0"]


def test_status_has_a_row_for_a_half_done_sweep_and_for_specs_that_cannot_be_swept(
    here: Path, swept: Path
) -> None:
    copy_store(swept)
    shutil.rmtree(next(Path(".spar_bench/stages/student").iterdir()))
    shutil.rmtree(Path(".spar_bench/stages/evaluate"))
    write_spec("teachr: {}\n", "wrong")

    write_spec(UNREADY, "unready")

    result = spar_bench("status")

    assert [line.split() for line in result.stdout.splitlines()[1:4]] == [
        ["tiny", "3", "0", "0", "0", "3"],
        ["unready", "3", "missing"],
        ["wrong", "has", "mistakes"],
    ]
    assert result.stdout.splitlines()[4:] == [
        "what to fix: spar-bench check --ready experiments/unready.yaml",
        "what to fix: spar-bench check --ready experiments/wrong.yaml",
    ]
    assert result.stderr == ""
    assert "wrong.yaml:1:1" in one_line(spar_bench("status", "experiments/wrong.yaml", exits=2))


@pytest.mark.parametrize(
    ("made_last", "said"),
    [
        (["latency"], "latency, results to do"),
        (["cost", "latency"], "cost, latency, results to do"),
    ],
)
def test_status_says_what_is_made_after_all_trials_and_is_not_there(
    here: Path, swept: Path, made_last: list[str], said: str
) -> None:
    copy_store(swept)
    for kind in made_last:
        shutil.rmtree(Path(".spar_bench/stages", kind))
    Path(".spar_bench/results/tiny/results.json").unlink()

    stopped = spar_bench("status").stdout
    spar_bench("sweep", "experiments/tiny.yaml")
    swept_again = spar_bench("status").stdout

    finished = "failed pruned to do tiny 3 3 0 0 0"
    assert " ".join(stopped.split()).endswith(f"{finished} {said}")
    assert " ".join(swept_again.split()).endswith(finished)


def test_status_without_specs_is_one_line(here: Path) -> None:
    assert "spar-bench init" in one_line(spar_bench("status", exits=2))


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


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seeds": 3}'])
def test_seeds_that_cannot_be_read_are_one_line_and_leave_the_others_alone(
    here: Path, swept: Path, text: str
) -> None:
    copy_store(swept)
    write_spec(TINY, "other")
    Path(".spar_bench/results/tiny/sweep.json").write_text(text)

    stood = spar_bench("status", exits=2)
    collected = spar_bench("cache", "gc", exits=2)

    assert "other            3" in stood.stdout
    for result in (stood, collected):
        assert "must hold the seeds of the last sweep, but cannot be read" in one_line(result)


def test_seeds_that_cannot_be_read_are_written_anew_by_the_next_sweep(
    here: Path, swept: Path
) -> None:
    copy_store(swept)
    Path(".spar_bench/results/tiny/sweep.json").write_text("[]")

    assert "3 of 3 trials finished, 0 stages" in spar_bench("sweep", "experiments/tiny.yaml").stdout
    assert spar_bench("status").stderr == ""


def test_check_counts_trials_as_plan_does(here: Path) -> None:
    spec = write_spec(TINY.replace("evaluate:", "seeds: [0, 1]\nevaluate:", 1))

    assert spar_bench("check", spec).stdout == f"{spec}: is valid, 4 trials\n"
    assert "4 trials, " in spar_bench("plan", spec).stdout


def test_init_writes_a_spec_that_reads_well_and_refuses_to_overwrite(here: Path) -> None:
    spar_bench("init", "mine/first.yaml")

    assert "is valid" in spar_bench("check", "mine/first.yaml", "--ready").stdout
    assert "must be a new file" in one_line(spar_bench("init", "mine/first.yaml", exits=2))


def test_command_that_is_suggested_can_be_pasted_whatever_the_path(here: Path) -> None:
    said = spar_bench("init", "experiments/my first.yaml").stdout.strip()
    write_spec("teachr: {}\n", "my wrong")

    named = "'experiments/my first.yaml'"
    assert said.endswith(f"next: spar-bench plan {named}, then spar-bench sweep {named}")
    assert "--ready 'experiments/my wrong.yaml'" in spar_bench("status").stdout
    assert "spar-bench check 'experiments/my wrong.yaml' lists" in spar_bench("doctor").stdout


SIZES = (
    "plugin: openclip\nmodel: ViT-B-16\npatch_px: 16\nimage_px: 224\nwidth: 768\ndepth: 12\n"
    "heads: 12\nmlp_ratio: 4.0\nchannels: 512\nread_out: maskclip\n"
)
MISTAKES = {
    "dataset_key": (
        "evaluate: {datasets: [mine.yaml]}",
        "plugin: folder\nlogit_scal: 3",
        "mine.yaml: logit_scal: must be a known key, but got 'logit_scal'; did you mean "
        "'logit_scale'?",
    ),
    "dataset_files": (
        "evaluate: {datasets: [mine.yaml]}",
        "plugin: tree\nclasses: [[a]]\nfiles: {vall: {}}",
        "mine.yaml: files: vall: must be a known key, but got 'vall'; did you mean 'val'?",
    ),
    "source": (
        "images: {source: mine.yaml}",
        "plugin: tree\nshort_side_px: 0",
        "mine.yaml: short_side_px: input should be greater than 0, but got 0; correct it",
    ),
    "backbone_value": (
        "backbone: mine.yaml",
        SIZES.replace("depth: 12", "depth: 0"),
        "mine.yaml: depth: input should be greater than 0, but got 0; correct it",
    ),
    "plugin": (
        "backbone: mine.yaml",
        "plugin: opencli",
        "mine.yaml: plugin: must name one of dinov3, dinov3txt, naflex, openclip, patchwork, "
        "siglip2, but got 'opencli'; correct it",
    ),
    "absent": (
        "backbone: none.yaml",
        "plugin: openclip",
        "none.yaml: a data file must exist, but does not; correct its name",
    ),
    "unreadable": (
        "backbone: mine.yaml",
        "plugin: [",
        "mine.yaml: a data file must be readable YAML, but is not: while parsing a flow node "
        "expected the node content, but found '<stream end>' in \"mine.yaml\", line 1, column 10; "
        "fix it",
    ),
    "backbone_setting": (
        "backbone: {name: mine.yaml, read_out: patch_tokens}",
        SIZES,
        "experiments/tiny.yaml:1:39: backbone.read_out: must be one that mine.yaml has, but got "
        "'patch_tokens'; use maskclip",
    ),
    "classes": (
        "evaluate: {datasets: [{name: patchwork, classes: [[heart]]}]}",
        "",
        "data set patchwork: classes: must name the 14 classes of the scenes, but got 1; leave "
        "them out for the scenes' own names",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_in_a_data_file_that_a_spec_names_is_one_of_the_spec(here: Path, name: str) -> None:
    text, stated, said = MISTAKES[name]
    Path("mine.yaml").write_text(stated)
    spec = write_spec(f"{text}\n")

    checked = spar_bench("check", spec, exits=2)

    of_spec = said if said.startswith(f"{spec}:") else f"{spec}: {said}"
    assert (checked.stdout, one_line(checked)) == ("", of_spec)
    assert one_line(spar_bench("status", spec, exits=2)) == of_spec
    assert one_line(spar_bench("sweep", spec, exits=2)) == said
    assert "has mistakes" in spar_bench("doctor").stdout


UNREADY = """\
backbone: siglip2-b16-256
images: {source: {path: nowhere}}
evaluate: {datasets: [{path: nothing}]}
"""


@pytest.mark.parametrize("command", ["plan", "status"])
def test_all_that_is_missing_is_told_at_once(here: Path, command: str) -> None:
    spec = write_spec(UNREADY)

    told = spar_bench(command, spec, exits=2).stderr.splitlines()

    assert len(told) == 3
    if command == "status":  # of several specs
        told = [line.removeprefix(f"{spec}: ") for line in told]
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


def test_doctor_tells_versions_store_plug_ins_and_specs(in_swept: Path) -> None:
    said = spar_bench("doctor").stdout

    for name in ("torch", "device", "store", "tracking", "patchwork", "folder"):
        assert any(line.startswith(name) for line in said.splitlines()), name
    assert "(15 stages, " in said
    assert "experiments/tiny.yaml: ready" in said


def test_doctor_of_a_broken_installation_says_what_is_broken(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    write_spec("evaluate: {datasets: [{path: nowhere}]}\n", "lacking")
    write_spec("teachr: {}\n", "wrong")
    Path(".spar_bench").write_text("not a folder")

    said = spar_bench("doctor").stdout

    assert "torch cannot be loaded" in said
    assert "must be a writable folder" in said
    assert "experiments/lacking.yaml: 1 missing\n  nowhere" in said
    assert "experiments/wrong.yaml: has mistakes; spar-bench check" in said


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:///mlflow.db", "(answers)\n"),
        ("sqlite:///none.db", "(will be created)\n"),
        ("http://127.0.0.1:9", "cannot be used: tracking URI http://127.0.0.1:9: must be"),
        ("mlruns", "cannot be used: --tracking-uri: must be"),
    ],
)
def test_doctor_tells_whether_the_tracking_store_answers(here: Path, uri: str, said: str) -> None:
    assert said in spar_bench("doctor", "--tracking-uri", uri).stdout
    assert not Path("none.db").exists()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("backbones", "patchwork"),
        ("datasets", "patchwork"),
        ("losses", "mse"),
        ("refiners", "none"),
    ],
)
def test_plug_ins_are_listed_within_80_characters(command: str, name: str) -> None:
    said = spar_bench(command).stdout.splitlines()

    assert max(map(len, said)) <= 80
    assert any(line.startswith(f"{name} ") for line in said)


def test_shell_completes_specs_trials_and_experiments(in_swept: Path) -> None:
    assert completed("refi") == ["refiners"]
    assert "experiments/" in completed("sweep", "")
    assert completed("check", "experiments/t") == ["experiments/tiny.yaml"]
    assert completed("plan", "nowhere/") == []
    strides = ["stride_px=32", "stride_px=64"]
    assert completed("sweep", "experiments/tiny.yaml", "--only", "stride") == strides
    assert completed("explain", "stride") == strides
    assert completed("explain", "tiny/stride_px=6") == ["tiny/stride_px=64"]
    assert completed("report", "t") == ["tiny"]


def test_completion_of_an_unreadable_spec_offers_nothing(here: Path) -> None:
    assert completed("sweep", write_spec("teachr: {}\n"), "--only", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed(shell: str) -> None:
    assert "_SPAR_BENCH_COMPLETE" in spar_bench("completion", shell).stdout


def test_ctrl_c_in_any_command_exits_130_and_a_bug_keeps_its_traceback(
    in_swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("spar_bench.session.read.plan_sweep", stopped)
    result = spar_bench("plan", "experiments/tiny.yaml", exits=130)
    monkeypatch.setattr("spar_bench.session.read.plan_sweep", broken)

    assert one_line(result) == "Stopped."
    with pytest.raises(RuntimeError, match="a bug"):
        spar_bench("plan", "experiments/tiny.yaml")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (99.4, "99 s"), (150, "2 min"), (5999, "1 h 40 min"), (7260, "2 h 01 min")],
)
def test_times_are_shown_as_people_say_them(seconds: float, said: str) -> None:
    assert span(seconds) == said


@pytest.mark.parametrize(("n_bytes", "said"), [(0, "0 B"), (1500, "1.5 kB"), (2e12, "2e+03 GB")])
def test_sizes_have_their_unit(n_bytes: float, said: str) -> None:
    assert size(n_bytes) == said


def test_last_column_is_wrapped_only_where_there_is_room() -> None:
    sentence = "word " * 20
    wide = [["x" * 70, sentence.strip()]]

    wrapped = table(["name", "what"], [["a", sentence.strip()]]).splitlines()

    assert (len(wrapped), max(map(len, wrapped)) <= 80) == (3, True)
    assert len(table(["name", "what"], wide).splitlines()) == 2


@pytest.mark.parametrize(
    "text",
    [
        "backbone: {path: ~nosuch/clip}",
        "backbone: {name: ~nosuch/mine.yaml}",
        "images: {source: {path: ~nosuch/photos}}",
        "evaluate: {datasets: [{path: ~nosuch/streets}]}",
    ],
)
def test_home_of_nobody_is_a_folder_that_does_not_exist(here: Path, text: str) -> None:
    result = spar_bench("check", "--ready", write_spec(f"{text}\n"), exits=2)

    assert "~nosuch" in result.output
