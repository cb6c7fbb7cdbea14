"""`mirror`: show finished sweeps in MLflow."""

from pathlib import Path

import click

from spar_bench.cli.completion import swept_experiments
from spar_bench.cli.options import store_option, tracking_option


@click.command()
@click.argument(
    "experiments", nargs=-1, metavar="[EXPERIMENT]...", shell_complete=swept_experiments
)
@store_option
@tracking_option
def mirror(experiments: tuple[str, ...], store: Path, tracking_uri: str | None) -> None:
    """Show finished sweeps in MLflow; default: all sweeps.

    A sweep does so itself; this catches up after the tracking store was down or deleted. What is
    shown already is left as it is.
    """
    from spar_bench.session.mirror import mirror as show

    def tell(name: str, is_shown: bool) -> None:
        click.echo(f"{name}: shown" if is_shown else f"{name}: a sweep that runs now shows it")

    show(experiments, store=store, tracking_uri=tracking_uri, on_mirrored=tell)
