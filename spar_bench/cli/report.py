"""`report`: write the tables and figures of finished sweeps."""

from pathlib import Path
from typing import Any

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
    "--suite",
    "suites",
    is_flag=True,
    help="Of each folder that was swept as a whole, with the claims of all its experiments.",
)
@click.option(
    "--mix-protocols",
    is_flag=True,
    help="Allow rows of different evaluation protocols in a table; a column then says which.",
)
def report(experiments: tuple[str, ...], folder: Path, **options: Any) -> None:
    """Write tables and figures of finished sweeps to reports/EXPERIMENT/; default: all sweeps.

    EXPERIMENT may be a suite, a folder that was swept as a whole: its experiments are written too.
    """
    from spar_bench.session.reports import write_report

    def tell(name: str, paths: list[Path]) -> None:
        click.echo(f"{folder / name}: {len(paths)} files; start with {folder / name / 'README.md'}")

    write_report(
        experiments,
        folder=folder,
        on_written=tell,
        **options,
    )
