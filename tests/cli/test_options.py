"""Options and arguments that several commands share."""

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from spar_bench.cli import main
from spar_bench.cli.options import HomePath
from tests.small import UNTIMED, one_line, spar_bench, write_spec


def parameters(command: click.Command) -> Iterator[click.Parameter]:
    """Yield the parameters of a command and of those below it."""
    yield from command.params
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from parameters(below)


def test_every_path_is_one_that_may_begin_at_home() -> None:
    paths = [one.type for one in parameters(main) if isinstance(one.type, click.Path)]

    assert len(paths) > 10
    assert [path for path in paths if not isinstance(path, HomePath)] == []


def test_quoted_paths_begin_at_home(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = here / "home"
    monkeypatch.setenv("HOME", str(home))

    spar_bench("init", "~/experiments/first.yaml")
    checked = spar_bench("check", "~/experiments/first.yaml").stdout
    explained = spar_bench("explain", "x", "--store", "~/store", exits=2)
    imported = spar_bench("import", "~/x.pth", "--backbone", "patchwork", exits=2)

    assert checked.startswith(f"{home}/experiments/first.yaml: is valid")
    assert one_line(explained).startswith(f"{home}/store: must hold a finished sweep")
    assert one_line(imported).startswith(f"{home}/x.pth: must be a file of weights")
    assert not Path("~").exists()


@pytest.mark.parametrize(
    "command",
    [
        "sweep experiments/tiny.yaml --store file:///x",
        "status --store local://x",
        "report --folder s3://bucket/x",
        "export student --format timm --to s3://bucket/x",
    ],
)
def test_address_in_place_of_a_folder_is_refused(here: Path, command: str) -> None:
    write_spec(UNTIMED)

    refused = one_line(spar_bench(*command.split(), exits=2))

    assert "must be a folder, but is an address; " in refused
    assert {path.name for path in here.iterdir()} <= {"experiments", "mlflow.db"}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("foo://bucket/x", "must be a folder, or an address that fsspec knows, but is not: "),
        ("ftp://lab:s3cret@host/x", "must have no password in it, but has one; "),
        ("s3://", "must be a folder, or the address of a bucket as text, but is neither; "),
        ("experiments/tiny.yaml", "must be a writable folder, but writing failed (Not a direc"),
    ],
)
def test_bucket_that_cannot_be_reached_is_one_line(here: Path, address: str, said: str) -> None:
    write_spec(UNTIMED)

    for command in ("sweep experiments/tiny.yaml", "status", "report"):
        refused = one_line(spar_bench(*command.split(), "--store", address, exits=2))

        assert said in refused
        assert "s3cret" not in refused
    written = Path(os.environ["XDG_CACHE_HOME"]).rglob("store.json")
    assert [path for path in written if "s3cret" in path.read_text()] == []
    assert {path.name for path in here.iterdir()} <= {"experiments", "mlflow.db"}
