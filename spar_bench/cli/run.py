"""Commands that do work: plan, sweep, report and ui."""

import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spar_bench.cli.completion import swept_experiments, trials_to_come
from spar_bench.cli.options import (
    HomePath,
    counted,
    seeds_option,
    size,
    span,
    spec_argument,
    store_option,
    table,
    tracking_option,
)
from spar_bench.cli.stopping import INTERRUPTED, Follower, Stopper
from spar_bench.processes import n_processes, rank

if TYPE_CHECKING:
    from spar_bench.session.read import PlanView
    from spar_bench.session.sweep import Outcome


@click.command()
@spec_argument
@store_option
@seeds_option
def plan(spec: Path, store: Path, n_seeds: int | None) -> None:
    """Show what sweeping SPEC would do: trials, shared stages, windows, GFLOPs, bytes and time."""
    _show_plan(spec, store, n_seeds)


@click.command()
@spec_argument
@store_option
@tracking_option
@seeds_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads  [default: torch's]")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that render distillation images ahead  [default: up to 4 with a GPU, else 0]",
)
@click.option(
    "--only",
    multiple=True,
    metavar="TRIAL",
    help="Run this trial or group; repeatable.",
    shell_complete=trials_to_come,
)
@click.option("--retry", is_flag=True, help="Also retry students whose loss was not finite.")
@click.option("--fail-fast", is_flag=True, help="Stop after the first failure.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
def sweep(spec: Path, dry_run: bool, **options: Any) -> None:
    """Run the experiment SPEC; finished work is not repeated.

    Ctrl-C once finishes what is being written and stops; the same command resumes from there. Exit
    code 1 means that some trials failed, 2 that the request cannot be run.

    Several processes train a student together: torchrun --nproc-per-node 2 -m spar_bench sweep SPEC
    """
    if n_processes() > 1:  # torch would warn in each that it looked for unused weights
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if rank() > 0:
        if not dry_run:
            _follow(**options)
        return
    if dry_run:
        _show_plan(spec, options["store"], options["n_seeds"], options["only"])
        return
    stopper = Stopper()
    with stopper.listening():
        outcome = _sweep(spec, stopper, **options)
    _say_how_it_went(outcome, spec)


def _follow(**options: Any) -> None:
    """Train along with the first process; only that one reports and handles Ctrl-C."""
    follower = Follower()  # before torch starts threads that would receive it
    from spar_bench.session.follow import follow
    from spar_bench.session.sweep import Options

    follow(Options(**options), on_joined=follower.joined.set)


def _sweep(spec: Path, stopper: Stopper, **options: Any) -> "Outcome":
    from spar_bench.spec import read_spec

    click.echo(f"reading {spec}", err=True)  # what follows takes seconds before its next message
    read_spec(spec)  # a mistake in the spec is reported before torch is imported
    from spar_bench.cli.progress import watching
    from spar_bench.run.context import Interrupted
    from spar_bench.session.sweep import Options
    from spar_bench.session.sweep import sweep as run

    try:
        if stopper.event.is_set():
            raise Interrupted
        with watching(stopper) as watcher:
            return run(spec, Options(**options), watcher=watcher, stop=stopper.event)
    except Interrupted:
        click.echo("Stopped. Finished work is kept; run the same command to resume.", err=True)
        raise SystemExit(INTERRUPTED) from None


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


@click.command()
@tracking_option
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def ui(tracking_uri: str | None, port: int) -> None:
    """Browse runs in the MLflow UI, on this machine only."""
    from spar_bench import track

    uri = track.tracking_uri(tracking_uri)
    command, environment = track.ui_command(uri, port=port)
    click.echo(f"MLflow UI on http://127.0.0.1:{port} (Ctrl-C stops it)")
    for experiment, address in track.view_urls(uri, port=port).items():
        click.echo(f"{experiment}: {address}")
    # The server starts workers; its own process group lets all of them end with it.
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:

        def end(*_: object) -> None:
            os.killpg(server.pid, signal.SIGTERM)

        before = {n: signal.signal(n, end) for n in (signal.SIGINT, signal.SIGTERM)}
        code = server.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    raise SystemExit(0 if code == -signal.SIGTERM else code)


def _show_plan(spec: Path, store: Path, n_seeds: int | None, only: tuple[str, ...] = ()) -> None:
    from spar_bench.session.read import plan_sweep

    seeds = None if n_seeds is None else list(range(n_seeds))
    view = plan_sweep(spec, store=store, seeds=seeds, only=only)
    click.echo(_plan_text(view))


def _plan_text(view: "PlanView") -> str:
    """Format groups, stages and totals of a plan as text."""
    plan, loaded = view.plan, view.loaded
    trials = table(
        ["trial", "methods", "stages", "to do"],
        [
            [
                trial.name,
                ", ".join(dict.fromkeys(row.method for row in trial.rows)),
                str(len(needed := plan.of_trial(trial))),
                str(sum(one.stage.fingerprint in needed for one in view.missing)),
            ]
            for trial in plan.trials
        ],
        right="llrr",
    )
    stages = table(
        ["stage", "fingerprint", "state", "trials", "windows", "GFLOPs", "store", "time"],
        [
            [
                one.stage.kind,
                one.stage.fingerprint[:12],
                "to do" if one.status == "skipped" else one.status,
                str(one.n_trials),
                str(one.estimate.n_windows),
                f"{one.estimate.gflops:.3g}",
                size(one.estimate.n_bytes),
                span(one.seconds),
            ]
            for one in view.stages
        ],
        right="lllrrrrr",
    )
    head = f"{loaded.experiment}: {loaded.spec.question}"
    return "\n".join([head, "", trials, "", stages, "", *view.remarks, _total(view)])


def _total(view: "PlanView") -> str:
    todo = view.missing
    basis = "speeds measured here" if view.measured else "a guess: nothing measured here yet"
    search = view.loaded.search
    more = f" A search asks for {search.trials} trials, one after another." if search else ""
    return (
        f"{counted(len(view.plan.trials), 'trial')}, {counted(len(view.stages), 'stage')}, "
        f"{len(todo)} to do: about "
        f"{span(view.seconds)} ({basis}), "
        f"{size(sum(one.estimate.n_bytes for one in todo))} in the store.{more}"
    )


def _say_how_it_went(outcome: "Outcome", spec: Path) -> None:
    """Print what was made, what failed and what is next; exit code 1 if anything failed."""
    n_done, n_trials = sum(outcome.trials.values()), len(outcome.trials)
    n_pruned = len({row.trial for row in outcome.rows if row.status == "pruned"})
    pruned = f"{n_pruned} pruned, " if n_pruned else ""
    click.echo(
        f"{outcome.experiment}: {n_done} of {counted(n_trials, 'trial')} finished, "
        f"{pruned}{counted(outcome.n_made, 'stage')} made now. Next: {_next(outcome, spec)}"
    )
    failed = [row for row in outcome.unfinished if row.status in ("failed", "blocked")]
    told = {row.reason for row in failed}
    lines = {f"{row.trial}: {row.reason}" for row in failed}
    lines |= {f"{kind}: {why}" for kind, why in outcome.failures.values() if why not in told}
    for line in sorted(lines):
        click.echo(f"failed: {line}", err=True)
    if lines:
        raise SystemExit(1)


def _next(outcome: "Outcome", spec: Path) -> str:
    """Return what to do after a sweep; a report shows nothing if nothing finished."""
    if len(outcome.unfinished) < len(outcome.rows):
        return f"spar-bench report {outcome.experiment}"
    return f"fix what failed, then run spar-bench sweep {shlex.quote(str(spec))} again"
