"""The commands `init` and `check`: a spec to begin with, and the mistakes in one."""

from pathlib import Path

import pytest

from tests.small import TINY, one_line, spar_bench, write_spec


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
        "mine.yaml: short_side_px: must be above 0, but got 0; raise it",
    ),
    "backbone_value": (
        "backbone: mine.yaml",
        SIZES.replace("depth: 12", "depth: 0"),
        "mine.yaml: depth: must be above 0, but got 0; raise it",
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
