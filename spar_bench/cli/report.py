"""`report`: write the tables and figures of finished sweeps."""

import webbrowser
from pathlib import Path
from typing import Any

import click

from spar_bench.cli.completion import swept_experiments
from spar_bench.cli.options import HomePath, store_option

PAGE = "index.html"


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
@click.option(
    "--columns",
    metavar="NAMES",
    default="",
    help="Columns of the tables of accuracy and cost, in their order: miou,gflops,latency; "
    "default: all that say something.",
)
@click.option(
    "--open",
    "is_open",
    is_flag=True,
    help="Open the page in a browser; of several, the one that was written last.",
)
def report(
    experiments: tuple[str, ...], folder: Path, columns: str, is_open: bool, **options: Any
) -> None:
    """Write tables and figures of finished sweeps to reports/EXPERIMENT/; default: all sweeps.

    EXPERIMENT may be a suite, a folder that was swept as a whole: its experiments are written too.
    """
    from spar_bench.session.reports import write_report

    pages = list[Path]()

    def tell(name: str, paths: list[Path]) -> None:
        here = folder / name
        pages.append(here / PAGE)
        click.echo(
            f"{here}: {len(paths)} files; start with {here / 'README.md'}, or {pages[-1]} in a "
            "browser"
        )

    write_report(
        experiments,
        folder=folder,
        columns=[name.strip() for name in columns.split(",") if name.strip()],
        on_written=tell,
        **options,
    )
    if is_open:
        _open(pages[-1])


def _open(page: Path) -> None:
    """Show a page in a browser, or say where it lies."""
    address = page.absolute().as_uri()
    if not webbrowser.open(address):
        click.echo(f"no browser is found here; the page is {address}")
