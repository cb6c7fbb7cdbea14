"""`sweep`: run an experiment."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spar_bench.cli.options import (
    listed,
    only_option,
    seeds_option,
    spec_argument,
    store_option,
    tracking_option,
)
from spar_bench.cli.plan import show_plan
from spar_bench.cli.printing import counted
from spar_bench.cli.stopping import Follower, Stopper, interruptible
from spar_bench.errors import Interrupted
from spar_bench.processes import quieten_torch, rank

if TYPE_CHECKING:
    from spar_bench.session.sweep import Outcome


FOLLOWED = ("store", "device", "threads", "workers")
"""The options that count where a process trains along."""


@click.command()
@spec_argument
@store_option
@tracking_option
@seeds_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option(
    "--devices",
    metavar="NAME,...",
    callback=lambda _, __, value: listed(value),
    help="One worker process on each, such as cuda:0,cuda:1.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Worker processes that share the device.",
)
@click.option(
    "--on",
    metavar="ADDRESS",
    help="A Ray cluster, by its address, or ray: all GPUs of this machine.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Of --devices, --jobs or --on, those that train a student together.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads  [default: torch's]")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that render distillation images ahead  [default: up to 4 with a GPU, else 0]",
)
@only_option
@click.option("--retry", is_flag=True, help="Also retry students whose loss was not finite.")
@click.option("--retime", is_flag=True, help="Time all again, as after a loaded machine.")
@click.option("--fail-fast", is_flag=True, help="Stop after the first failure.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
def sweep(spec: Path, dry_run: bool, **options: Any) -> None:
    """Run the experiment SPEC, or all of a folder as one; finished work is not repeated.

    Ctrl-C once finishes what is being written and stops; the same command resumes from there. Exit
    code 1 means that some trials failed, 2 that the request cannot be run.

    Several processes train a student together: torchrun --nproc-per-node 2 -m spar_bench sweep SPEC
    """
    quieten_torch()
    if rank() > 0:
        if not dry_run:
            _follow(**{name: options[name] for name in FOLLOWED})
        return
    if dry_run:
        show_plan(spec, options["store"], options["n_seeds"], only=options["only"])
        return
    with interruptible() as stopper:
        outcome = _sweep(spec, stopper, **options)
    _say_how_it_went(outcome, spec)


def _follow(**options: Any) -> None:
    """Train along with the first process; only that one reports and handles Ctrl-C."""
    follower = Follower()  # before torch starts threads that would receive it
    from spar_bench.session.follow import follow

    follow(**options, on_joined=follower.joined.set)


def _sweep(spec: Path, stopper: Stopper, **options: Any) -> "Outcome":
    from spar_bench.conflicts import read_specs

    click.echo(f"reading {spec}", err=True)  # what follows takes seconds before its next message
    read_specs(spec)  # a mistake is reported, and Ctrl-C heeded, before there is a store
    from spar_bench.cli.progress import watching
    from spar_bench.session.sweep import Options
    from spar_bench.session.sweep import sweep as run
    from spar_bench.spec.read import experiment_name

    if stopper.event.is_set():
        raise Interrupted
    with watching(experiment_name(spec), stopper) as watcher:
        return run(spec, Options(**options), watcher=watcher, stop=stopper.event)


def _say_how_it_went(outcome: "Outcome", spec: Path) -> None:
    """Print what was made, what failed and what is next; exit code 1 if anything failed."""
    n_done, n_trials = sum(outcome.trials.values()), len(outcome.trials)
    n_pruned = len({outcome.trial_of(row) for row in outcome.rows if row.status == "pruned"})
    pruned = f"{n_pruned} pruned, " if n_pruned else ""
    click.echo(
        f"{outcome.experiment}: {n_done} of {counted(n_trials, 'trial')} finished, "
        f"{pruned}{counted(outcome.n_made, 'stage')} made now. Next: {_next(outcome, spec)}"
    )
    failed = [row for row in outcome.unfinished if row.status in ("failed", "blocked")]
    reasons = {row.reason for row in failed}
    lines = {f"{outcome.trial_of(row)}: {row.reason}" for row in failed}
    lines |= {f"{kind}: {why}" for kind, why in outcome.failures.values() if why not in reasons}
    for line in sorted(lines):
        click.echo(f"failed: {line}", err=True)
    if lines:
        raise SystemExit(1)


def _next(outcome: "Outcome", spec: Path) -> str:
    """Return what to do after a sweep; a report shows nothing if nothing finished."""
    if len(outcome.unfinished) < len(outcome.rows):
        return f"spar-bench report {'--suite ' if spec.is_dir() else ''}{outcome.experiment}"
    return f"fix what failed, then run spar-bench sweep {shlex.quote(str(spec))} again"
