"""`pull` and `push`: finished stages between this store and another, by fingerprint."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.filesize import decimal

from spar_bench.cli.options import store_option
from spar_bench.cli.printing import counted

if TYPE_CHECKING:
    from spar_bench.transfer import Moved

url_argument = click.argument("url", metavar="STORE")
names_argument = click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")


@click.command()
@url_argument
@names_argument
@store_option
def pull(url: str, experiments: tuple[str, ...], store: Path) -> None:
    """Copy finished stages from STORE, a folder or an address such as s3://BUCKET/FOLDER.

    With EXPERIMENTs, what their reports and students need, and their results; else all stages.
    What is here already is not copied again. Exit code 1 if something there is damaged.
    """
    from spar_bench.bucket.objects import reached
    from spar_bench.opening import open_folder
    from spar_bench.transfer import pull

    other = reached(url)
    _move("from", url, lambda: pull(open_folder(store), other, experiments))


@click.command()
@url_argument
@names_argument
@store_option
def push(url: str, experiments: tuple[str, ...], store: Path) -> None:
    """Copy finished stages to STORE, a folder or an address such as s3://BUCKET/FOLDER.

    As `pull`, the other way.
    """
    from spar_bench.bucket.objects import reached
    from spar_bench.opening import open_folder
    from spar_bench.transfer import push

    other = reached(url)
    _move("to", url, lambda: push(open_folder(store, make=False), other, experiments))


def _move(way: str, url: str, transfer: Callable[[], "Moved"]) -> None:
    """Transfer, and say what was done."""
    moved: Any = transfer()
    click.echo(
        f"copied {counted(moved.n_stages, 'stage')}, {decimal(moved.n_bytes)}, {way} {url}; "
        f"{counted(moved.n_there, 'stage')} had been there"
    )
    for line in moved.damaged:
        click.echo(line, err=True)
    if moved.damaged:
        raise SystemExit(1)
