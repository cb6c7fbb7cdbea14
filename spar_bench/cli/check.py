"""`check`: find every mistake in specs, and what they need that is missing."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spar_bench.cli.options import SpecFile
from spar_bench.cli.printing import counted
from spar_bench.errors import NotReady, SpecError, naming

if TYPE_CHECKING:
    from spar_bench.spec import LoadedSpec


@click.command()
@click.argument(
    "specs",
    nargs=-1,
    required=True,
    type=SpecFile(),
    metavar="SPEC...",
)
@click.option(
    "--ready", is_flag=True, help="Exit with 2 when plug-ins, weights or data are missing."
)
def check(specs: tuple[Path, ...], ready: bool) -> None:
    """Read each SPEC and report every mistake; list what is missing or probably not intended.

    SPEC is a file, the name of an experiment, or a folder of specs.
    """
    from spar_bench.conflicts import read_spec, spec_files

    problems: list[str] = []
    lacking: list[str] = []
    for path in (file for spec in specs for file in spec_files(spec)):
        try:
            with naming(path):
                lacking.extend(_looked_through(path, read_spec(path)))
        except SpecError as error:
            problems.extend(error.problems)
    if problems:
        raise SpecError(*problems)
    if lacking and ready:
        raise NotReady(
            f"--ready: weights and data must be there, but {len(lacking)} of them, listed above, "
            "are missing; put them there"
        )


def _looked_through(path: Path, loaded: "LoadedSpec") -> list[str]:
    """Print what a valid spec lacks, and what in it is probably not intended; return the former."""
    # Late, so that what is wrong in a file is told without numpy.
    from spar_bench.resolve import Resolver
    from spar_bench.session.readiness import missing, remarks
    from spar_bench.session.selection import count_trials, initial_points

    resolver = Resolver()
    gaps = missing(loaded, resolver)
    unintended = remarks((point.settings for point in initial_points(loaded)), resolver)
    trials = counted(count_trials(loaded.points, loaded.spec.seeds), "trial")
    found = "a search" if loaded.search else trials
    click.echo(f"{path}: is valid, {found}" + (f", {len(gaps)} missing:" if gaps else ""))
    for line in gaps:
        click.echo(f"  {line}")
    if gaps and unintended:
        click.echo("  and probably not intended:")
    for line in unintended:
        click.echo(f"  {line}")
    return gaps
