"""`init`: write a spec to begin from."""

import shlex
from pathlib import Path

import click

from spar_bench.cli.options import HomePath
from spar_bench.errors import SparBenchError


@click.command()
@click.argument("path", type=HomePath(), default=Path("experiments/first.yaml"))
def init(path: Path) -> None:
    """Write a commented spec to begin from to PATH (default: experiments/first.yaml)."""
    from spar_bench.files import writing
    from spar_bench.spec.starter import write_starter

    if path.exists():
        raise SparBenchError(f"{path}: must be a new file, but already exists; name another")
    with writing(path.parent):
        write_starter(path)
    named = shlex.quote(str(path))
    click.echo(f"wrote {path}; next: spar-bench plan {named}, then spar-bench sweep {named}")
