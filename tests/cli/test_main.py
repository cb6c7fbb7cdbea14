"""The command line as a whole: help, what it imports, how it ends."""

import shutil
from pathlib import Path

import pytest

from spar_bench.cli import COMMANDS
from tests.small import one_line, printed, spar_bench, write_spec

HEAVY = ["torch", "open_clip", "timm", "mlflow", "optuna", "pandas", "matplotlib", "scipy"]


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
print(sorted({set(HEAVY)} & set(sys.modules)))
"""

    found = printed(code)
    shutil.rmtree("new")

    assert found.splitlines()[-1] == "[]"


def test_help_of_every_command_is_there() -> None:
    listed = spar_bench("--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in listed
        assert spar_bench(name, "--help").stdout.startswith("Usage:")


def test_misspelt_command_is_told_with_the_one_that_was_meant() -> None:
    said = spar_bench("swep", exits=2).stderr

    assert "No such command 'swep'. Did you mean 'sweep'?" in said


def test_help_loads_none_of_our_parts_that_load_others() -> None:
    code = (
        "import sys\n"
        "from spar_bench.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted(m for m in sys.modules if m.startswith('pydantic')))"
    )

    assert printed(code).splitlines()[-1] == "[]"


def test_command_loads_no_other() -> None:
    code = (
        "import sys\n"
        "from spar_bench.cli import main\n"
        "main(['completion', 'bash'], standalone_mode=False)\n"
        "print('spar_bench.cli.sweep' in sys.modules)"
    )

    assert printed(code).splitlines()[-1] == "False"


def test_ctrl_c_in_any_command_exits_130_and_a_bug_keeps_its_traceback(
    in_swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("spar_bench.session.planning.plan_sweep", stopped)
    result = spar_bench("plan", "experiments/tiny.yaml", exits=130)
    monkeypatch.setattr("spar_bench.session.planning.plan_sweep", broken)

    assert one_line(result) == "Stopped."
    with pytest.raises(RuntimeError, match="a bug"):
        spar_bench("plan", "experiments/tiny.yaml")


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
