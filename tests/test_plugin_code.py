"""A built-in plug-in that is edited under its VERSION is refused with what it made before."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spar_bench import plugin_code, registry
from spar_bench.stage import digest
from spar_bench.store import Store
from tests.numbers import listing, unlisted
from tests.small import copy_store, one_line, spar_bench

PACKAGE = registry.source("losses", "mse").parents[1]
REFUSAL = (
    f"{PACKAGE}/losses/mse.py: VERSION must be raised when the code of a plug-in "
    "changes, but is 1 as before, and the store has what the old code made; raise it, after which "
    "`spar-bench cache gc` deletes that, or undo the change"
)
SPEC = "experiments/tiny.yaml"
MSE, SUM = "F.mse_loss(*matched(student, teacher))", "F.mse_loss(student, teacher, reduction='sum')"

Edit = Callable[[str, str], None]


@pytest.fixture
def package(here: Path, swept: Path) -> Path:
    """A copy of the package, beside a store where this one has swept; here is the folder."""
    copy_store(swept)
    shutil.copytree(PACKAGE, here / "site" / "spar_bench")
    return here / "site" / "spar_bench"


@pytest.fixture
def edit(package: Path) -> Edit:
    """Let `edit(old, new)` change the code of the loss `mse` in the copy."""

    def edit(old: str, new: str) -> None:
        path = package / "losses" / "mse.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


@pytest.fixture
def made_by_other_code(here: Path, swept: Path) -> None:
    """A swept store whose student says that another code of the loss `mse` made it."""
    copy_store(swept)
    [path] = Path(".spar_bench/stages/student").glob("*/manifest.json")
    results = Path(".spar_bench/results/tiny/results.json")
    known = json.loads(path.read_text())["made"]["plugins"]["losses/mse 1"]
    for one in (path, results):
        text = one.read_text()
        for sha256 in known.values():
            text = text.replace(sha256, "0" * 64)
        one.write_text(text)
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_text(json.dumps(manifest | {"sha256": digest(manifest)}))


RUN = """
import json, sys
from click.testing import CliRunner
from spar_bench import plugin_code
from spar_bench.cli import main

results = [CliRunner().invoke(main, line.split()) for line in sys.argv[1:]]
print(json.dumps([plugin_code.syntax_sha256("losses", "mse"),
                  [[one.exit_code, one.stdout, one.stderr] for one in results]]))
"""


def run(*lines: str) -> tuple[str, list[tuple[int, str, str]]]:
    """Run commands of the copy in one process.

    Returns the syntax of its loss `mse`, and the exit code, output and errors of each command.
    """
    path = os.environ | {"PYTHONPATH": str(Path("site").absolute())}
    command = [sys.executable, "-c", RUN, *lines]
    result = subprocess.run(command, env=path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    syntax, ran = json.loads(result.stdout)
    return syntax, [(code, out, err) for code, out, err in ran]


def test_manifest_has_the_source_of_each_plug_in_that_made_the_stage(in_swept: Path) -> None:
    made = {stage.kind: stage.plugins for stage in Store(Path(".spar_bench")).finished()}

    towers = ["backbones/openclip 2", "backbones/patchwork 2"]
    assert {kind: sorted(plugins) for kind, plugins in made.items()} == {
        "images": ["datasets/patchwork 1"],
        "targets": towers,
        "student": sorted([*towers, "losses/mse 1", "read_outs/maskclip 1"]),
        "text": towers,
        "evaluate": [*towers, "datasets/patchwork 1", "refiners/none 1"],
        "cost": [*towers, "read_outs/maskclip 1", "refiners/none 1"],
        "latency": [*towers, "read_outs/maskclip 1", "refiners/none 1"],
    }
    assert made["student"]["losses/mse 1"]["syntax"] == plugin_code.syntax_sha256("losses", "mse")


@pytest.mark.parametrize(
    "line",
    [
        f"plan {SPEC}",
        "status",
        f"sweep {SPEC}",
        "report tiny",
        "mirror tiny",
        "export .spar_bench/stages/student/* --format timm --to exported",
    ],
)
def test_what_code_made_that_was_edited_since_is_refused_in_one_line(
    made_by_other_code: None, line: str
) -> None:
    [student] = Path(".spar_bench/stages/student").iterdir()
    stages = sorted(Path(".spar_bench/stages").rglob("*"))

    refused = spar_bench(*line.replace("*", student.name).split(), exits=2)

    assert one_line(refused) == REFUSAL
    assert sorted(Path(".spar_bench/stages").rglob("*")) == stages


def test_verify_counts_the_stages_of_code_that_was_edited(made_by_other_code: None) -> None:
    result = spar_bench("cache", "verify", exits=1)

    assert result.stdout == "15 stages intact, 0 damaged\n"
    assert result.stderr == f"{REFUSAL} (1 stage)\n"


def test_edit_is_refused_until_the_version_is_raised(package: Path, edit: Edit) -> None:
    edit(MSE, SUM)
    _, [(refused, _, line)] = run(f"plan {SPEC}")
    edit("VERSION = 1", "VERSION = 2")

    _, ran = run(f"plan {SPEC}", "cache verify", "report tiny")

    assert (refused, line.count("\n")) == (2, 1)
    assert line.endswith(f"{package}/losses/mse.py: {REFUSAL.partition(': ')[2]}\n")
    assert [code for code, _, _ in ran] == [0, 0, 0]
    # The student and its evaluation.
    assert ran[0][1].splitlines()[-1].startswith("3 trials, 15 stages, 2 to do: ")


def test_comment_docstring_and_line_break_are_no_edit(package: Path, edit: Edit) -> None:
    edit(MSE, "F.mse_loss(\n        *matched(student, teacher)  # in this order\n    )")
    edit("Magnitude counts", "Length counts")
    edit('"""Mean squared', '# The first.\n"""Mean, squared')

    syntax, [(code, out, _)] = run(f"plan {SPEC}")

    assert (code, out.splitlines()[-1]) == (0, "3 trials, 15 stages, 0 to do.")
    assert syntax == plugin_code.syntax_sha256("losses", "mse")


def test_edit_of_a_module_that_a_family_shares_counts_for_its_plug_ins(package: Path) -> None:
    shared = package / "losses" / "base.py"
    shared.write_text(shared.read_text() + "\nSCALE = 2\n")

    _, [(code, _, err)] = run(f"plan {SPEC}")

    assert (code, f"{package}/losses/mse.py: VERSION must be raised" in err) == (2, True)


def test_rewritten_code_whose_numbers_were_tested_to_be_the_same_is_accepted(
    package: Path, edit: Edit
) -> None:
    edit(MSE, "F.mse_loss(student, teacher)")
    syntax, [(refused, _, _)] = run(f"plan {SPEC}")
    table = json.loads((package / "plugin_code.json").read_text())
    table["losses/mse 1"].append(syntax)
    (package / "plugin_code.json").write_text(json.dumps(table))

    _, [(accepted, _, _)] = run(f"plan {SPEC}")

    assert (refused, accepted) == (2, 0)


def test_present_code_of_every_built_in_plug_in_is_listed_under_its_version() -> None:
    families = ("backbones", "datasets", "losses", "read_outs", "refiners")
    versions = {
        f"{family}/{name} {registry.version(family, name)}"
        for family in families
        for name, module in registry.modules(family).items()
        if module.startswith("spar_bench.")
    }

    assert unlisted(plugin_code.same_numbers()) == []
    assert set(plugin_code.same_numbers()) == versions


def test_plug_in_of_another_code_is_listed_after_the_earlier_one_and_old_versions_are_not() -> None:
    now = plugin_code.syntax_sha256("losses", "l1")
    earlier = plugin_code.same_numbers() | {"losses/l1 1": ["before"], "losses/l1 0": ["older"]}

    [line] = unlisted(earlier)
    listed = listing(earlier)

    assert line.startswith("losses/l1 1: plugin_code.json must list the plug-in's code, but ")
    assert listed == plugin_code.same_numbers() | {"losses/l1 1": ["before", now]}


def test_plug_ins_outside_the_package_and_what_is_no_identity_are_not_recorded() -> None:
    identity = {"versions": {"mine.py": 1, "l1": 1}, "sources": {}}

    found = plugin_code.record(
        {
            "loss": identity | {"settings": {"versions": {"mse": 1}}},
            "dataset": {"plugin": identity | {"versions": {"folder": 1}}, "versions": 3},
            "unknown": identity,
        }
    )

    assert sorted(found) == ["datasets/folder 1", "losses/l1 1"]
