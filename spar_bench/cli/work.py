"""`work`: make stages of a plan that a sweep wrote; what its worker processes run."""

import sys
from pathlib import Path
from typing import Any

import click

from spar_bench.cli.options import HomePath, store_option


@click.command()
@click.argument("plan", type=HomePath())
@click.argument("fingerprints", nargs=-1, metavar="FINGERPRINT...", required=True)
@store_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads  [default: torch's]")
@click.option("--workers", type=click.IntRange(min=0), help="As of sweep.")
def work(plan: Path, fingerprints: tuple[str, ...], **options: Any) -> None:
    """Make stages of PLAN, a file that a sweep wrote; events go to standard output as JSON lines.

    With - instead of a FINGERPRINT, batches are read from standard input until it ends.
    """
    from spar_bench.engine.parent import Parent, take_output

    # Before torch is imported, which takes seconds and may print.
    out = take_output()
    parent = Parent(sys.stdin) if "-" in fingerprints else None

    from spar_bench.run.serve import work as serve

    named = [name for name in fingerprints if name != "-"]
    serve(plan, named, parent=parent, out=out, **options)
