"""`losses` and `refiners`: list the plug-ins of a family that has no sizes or files to show."""

import click

from spar_bench.cli.printing import table
from spar_bench.errors import SparBenchError


@click.command()
def losses() -> None:
    """List distillation losses and what each does."""
    click.echo(_family("losses"))


@click.command()
def refiners() -> None:
    """List refiners of features or class scores and what each does."""
    click.echo(_family("refiners"))


def _family(family: str) -> str:
    from spar_bench import registry

    rows = [_plug_in(family, name) for name in registry.names(family)]
    return table(["name", "version", "what it is"], rows)


def _plug_in(family: str, name: str) -> list[str]:
    """Return the row of a plug-in, or what is wrong with it if it cannot be used."""
    from spar_bench import registry

    try:
        return [name, str(registry.version(family, name)), registry.purpose(family, name)]
    except SparBenchError as error:
        return [name, "", str(error)]
