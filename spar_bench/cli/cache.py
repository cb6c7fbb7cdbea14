"""The `cache` commands: what the store holds, whether it is intact, what nothing needs."""

from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import click
from rich.filesize import decimal

from spar_bench.cli.options import HomePath, store_option
from spar_bench.cli.printing import counted, table


@click.group()
def cache() -> None:
    """Look after the store of finished work."""


@cache.command("ls")
@store_option
def list_(store: Path) -> None:
    """List what is stored, by kind of stage."""
    from spar_bench.opening import open_store

    held: dict[str, list[int]] = {}
    for stage in open_store(store, make=False).finished():
        held.setdefault(stage.manifest["kind"], []).append(stage.n_bytes)
    rows = [[kind, str(len(sizes)), decimal(sum(sizes))] for kind, sizes in sorted(held.items())]
    total = [["total", str(sum(map(len, held.values()))), decimal(sum(map(sum, held.values())))]]
    click.echo(table(["kind", "stages", "size"], rows + total, "lrr"))


@cache.command()
@store_option
def verify(store: Path) -> None:
    """Check every file of every finished stage against its checksum; exit code 1 if one fails.

    So does a stage that a plug-in of this package made which was edited since under its VERSION.
    Results, notes and unfinished work have no checksum: the next sweep rewrites them.
    """
    from spar_bench import plugin_code
    from spar_bench.errors import Unreadable
    from spar_bench.opening import open_store
    from spar_bench.stage import Damaged

    opened, n_whole = open_store(store, make=False), 0
    damaged = [str(error) for error in opened.unreadable()]
    edited = Counter[str]()
    for stage in opened.finished():
        try:
            stage.check(hashed=True)
            n_whole += 1
        except (Damaged, Unreadable) as error:
            damaged.append(str(error))
        edited.update(plugin_code.edited_plugins(stage.plugins))
    for line in damaged:
        click.echo(line, err=True)
    for key, n_made in sorted(edited.items()):
        click.echo(f"{plugin_code.refusal(key)} ({counted(n_made, 'stage')})", err=True)
    click.echo(f"{counted(n_whole, 'stage')} intact, {len(damaged)} damaged")
    if damaged or edited:
        raise SystemExit(1)


@cache.command()
@click.argument(
    "specs",
    type=HomePath(exists=True, file_okay=False),
    default=Path("experiments"),
)
@store_option
@click.option("--yes", is_flag=True, help="Delete; without it, only list what would be deleted.")
def gc(specs: Path, store: Path, yes: bool) -> None:
    """Delete what no spec under the folder SPECS (default: experiments) needs.

    Nothing is deleted while a sweep uses the store.
    """
    from spar_bench.opening import open_store
    from spar_bench.session.unreachable import unreachable

    opened = open_store(store, make=False)
    with opened.unused() if yes and opened.root.exists() else nullcontext():
        gone = unreachable(opened, specs)
        for path, reason in gone.incomplete.items():
            click.echo(f"{path}: what it may need is kept, since it is unknown: {reason}", err=True)
        for stage in gone.finished:
            click.echo(f"{stage.kind}  {stage.fingerprint[:12]}  {decimal(stage.n_bytes)}")
            if yes:
                opened.discard(stage.fingerprint)
        for fingerprint, n_bytes in gone.unfinished.items():
            click.echo(f"unfinished  {fingerprint[:12]}  {decimal(n_bytes)}")
            if yes:
                opened.discard_unfinished(fingerprint)
        click.echo(f"pictures, redrawn when needed  {decimal(gone.pictures_bytes)}")
        if yes:
            opened.discard_rewritten()
    what = f"{counted(len(gone.finished) + len(gone.unfinished), 'stage')}, {decimal(gone.n_bytes)}"
    click.echo(f"deleted {what}" if yes else f"{what} would be deleted; --yes deletes them")
