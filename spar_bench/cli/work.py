"""`work`: make stages that a sweep names to its worker processes, or whatever is free of a spec."""

import faulthandler
import sys
from pathlib import Path
from typing import Any

import click

from spar_bench.cli.options import HomePath, SpecFile, only_option, seeds_option, store_option
from spar_bench.cli.printing import counted
from spar_bench.cli.stopping import interruptible
from spar_bench.processes import quieten_torch, rank


@click.command()
@click.argument("plan", type=HomePath())
@click.argument("fingerprints", nargs=-1, metavar="[FINGERPRINT]...")
@click.option("--any", "is_any", is_flag=True, help="Make whatever is free of PLAN, a spec.")
@store_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads  [default: torch's]")
@click.option("--workers", type=click.IntRange(min=0), help="As of sweep.")
@seeds_option
@only_option
def work(plan: Path, fingerprints: tuple[str, ...], is_any: bool, **options: Any) -> None:
    """Make stages of PLAN, a file that a sweep wrote; events go to standard output as JSON lines.

    With - instead of a FINGERPRINT, batches are read from standard input until it ends.

    With --any, PLAN is a spec or a folder of specs, as of sweep. Any number of such processes, on
    any hosts that share the store, make all of it together; a sweep then times, and writes results.
    """
    if is_any == bool(fingerprints):
        raise click.UsageError("give --any, or the FINGERPRINTs of stages of PLAN, but not both")
    if is_any:
        _join(SpecFile().convert(plan, None, None), **options)
    else:
        del options["n_seeds"], options["only"]
        _serve(plan, fingerprints, **options)


def _serve(plan: Path, fingerprints: tuple[str, ...], **options: Any) -> None:
    from spar_bench.engine.parent import Parent, take_output

    faulthandler.enable()  # a crash of compiled code says where
    # Before torch is imported, which takes seconds and may print.
    out = take_output()
    parent = Parent(sys.stdin) if "-" in fingerprints else None
    quieten_torch()
    if rank() > 0:
        from spar_bench.session.follow import follow

        follow(**options)
        return

    from spar_bench.run.serve import work as serve

    named = [name for name in fingerprints if name != "-"]
    serve(plan, named, parent=parent, out=out, **options)


def _join(spec: Path, **options: Any) -> None:
    with interruptible() as stopper:
        from spar_bench.conflicts import read_specs

        read_specs(spec)  # a mistake is reported before there is a store
        from spar_bench.cli.progress import watching
        from spar_bench.session.join import join
        from spar_bench.session.options import Options
        from spar_bench.spec.read import experiment_name

        with watching(experiment_name(spec), stopper) as watcher:
            made = join(spec, Options(**options), watcher=watcher, stop=stopper.event)
    end = "some failed" if made.failures else "none is left but timings"
    click.echo(f"{spec}: {counted(made.n_made, 'stage')} made here, {end}")
    for kind, reason in sorted(made.failures.values()):
        click.echo(f"failed: {kind}: {reason}", err=True)
    if made.failures:
        raise SystemExit(1)
