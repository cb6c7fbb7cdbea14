"""`report`: write the tables and figures of finished sweeps."""

from pathlib import Path

import click

from spar_bench.cli.completion import swept_experiments
from spar_bench.cli.options import HomePath, store_option


@click.command()
@click.argument(
    "experiments", nargs=-1, metavar="[EXPERIMENT]...", shell_complete=swept_experiments
)
@click.option(
    "--folder",
    type=HomePath(file_okay=False),
    default=Path("reports"),
    show_default=True,
    help="Each experiment gets its own folder in it.",
)
@store_option
@click.option(
    "--mix-protocols",
    is_flag=True,
    help="Allow rows of different evaluation protocols in a table; a column then says which.",
)
def report(experiments: tuple[str, ...], folder: Path, store: Path, mix_protocols: bool) -> None:
    """Write tables and figures of finished sweeps to reports/EXPERIMENT/; default: all sweeps."""
    from spar_bench.session.reports import write_report

    def tell(name: str, paths: list[Path]) -> None:
        click.echo(f"{folder / name}: {len(paths)} files; start with {folder / name / 'README.md'}")

    write_report(
        experiments,
        folder=folder,
        store=store,
        mix_protocols=mix_protocols,
        on_written=tell,
    )
