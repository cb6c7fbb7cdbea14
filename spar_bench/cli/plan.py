"""`plan`: show what a sweep would do."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.filesize import decimal

from spar_bench.cli.options import numbers, only_option, seeds_option, spec_argument, store_option
from spar_bench.cli.printing import counted, span, table

if TYPE_CHECKING:
    from spar_bench.session.planning import PlannedStage, PlanView


@click.command()
@spec_argument
@store_option
@seeds_option
@only_option
@click.option(
    "--assume",
    "device",
    metavar="DEVICE",
    help="Plan for another device, such as h100  [default: the one used here last].",
)
@click.option(
    "--jobs",
    metavar="N,...",
    callback=numbers,
    help="Also simulate it on so many workers, such as 1,8,64.",
)
@click.option("--verbose", is_flag=True, help="Also show the stages' fingerprints.")  # fmt: skip
def plan(spec: Path, **options: Any) -> None:
    """Show what sweeping SPEC would do: trials, shared stages, windows, FLOPs, bytes and time.

    SPEC is a file, the name of an experiment, or a folder of specs, planned as a whole.
    """
    show_plan(spec, **options)


def show_plan(
    spec: Path,
    store: Path,
    n_seeds: int | None,
    *,
    only: tuple[str, ...],
    device: str | None = None,
    jobs: tuple[int, ...] = (),
    verbose: bool = False,
) -> None:
    """Print the plan of a spec."""
    from spar_bench.session.planning import plan_sweep

    seeds = None if n_seeds is None else list(range(n_seeds))
    view = plan_sweep(spec, store=store, seeds=seeds, only=only, device=device)
    head = f"{view.name}: {view.question}"
    lacking = [f"missing: {line}" for line in view.lacking]
    parts = [head, "", _trials(view), "", _stages(view, verbose=verbose), ""]
    click.echo("\n".join([*parts, *lacking, *view.remarks, *_memory(view), _total(view)]))
    if jobs:
        click.echo(f"\n{_simulated(view, jobs)}")


def _trials(view: "PlanView") -> str:
    to_do = {planned.stage.fingerprint for planned in view.missing}
    rows = []
    for trial in view.plan.trials:
        needed = view.plan.of_trial(trial)
        methods = ", ".join(dict.fromkeys(row.method for row in trial.rows))
        rows.append([trial.name, methods, str(len(needed)), str(len(needed & to_do))])
    return table(["trial", "methods", "stages", "to do"], rows, "llrr")


def _stages(view: "PlanView", *, verbose: bool) -> str:
    """Return the stages, an empty line between kinds; with `verbose`, fingerprints come last."""
    header = ["stage", "state", "trials", "windows", "GFLOPs", "store", "time"]
    rows: list[list[str]] = []
    for _, stages in groupby(view.stages, key=lambda planned: planned.stage.kind):
        rows += [[]] if rows else []
        rows += [[*_cells(planned), planned.stage.fingerprint[:12]] for planned in stages]
    if verbose:
        header.append("fingerprint")
    filled = [(row or [""] * len(header))[: len(header)] for row in rows]
    return table(header, filled, "llrrrrr")


def _cells(planned: "PlannedStage") -> Iterator[str]:
    yield planned.title
    yield "to do" if planned.status == "skipped" else planned.status
    yield str(planned.n_trials)
    yield str(planned.estimate.n_windows)
    yield _shown(planned.estimate.gflops)
    yield decimal(planned.estimate.n_bytes)
    yield span(planned.seconds) if planned.to_do else ""


def _memory(view: "PlanView") -> Iterator[str]:
    """Yield a line for each group of students whose frozen blocks' results are kept in memory."""
    for n_students, work in view.frozen:
        limit = "" if work.kept_share == 1 else f", of which {work.kept_share:.0%} are kept"
        yield (
            f"{counted(n_students, 'student')} side by side: what frozen blocks give for all "
            f"images takes {decimal(work.n_bytes)} of memory{limit}."
        )


def _total(view: "PlanView") -> str:
    todo = view.missing
    asked = view.n_searched
    more = f" A search asks for {asked} trials, one after another." if asked else ""
    counts = (
        f"{counted(len(view.plan.trials), 'trial')}, {counted(len(view.stages), 'stage')}, "
        f"{len(todo)} to do"
    )
    if not todo:
        return f"{counts}.{more}"
    n_bytes = sum(planned.estimate.n_bytes for planned in todo)
    return (
        f"{counts}: {_flops(view.gflops)}, about {span(view.seconds)} with start-up "
        f"({view.speed}), {decimal(n_bytes)} in the store.{more}"
    )


def _simulated(view: "PlanView", jobs: tuple[int, ...]) -> str:
    """Return how long the plan takes on numbers of workers, as the scheduler would deal it out."""
    found = [view.simulated(n_workers) for n_workers in jobs]
    header = ["workers", "time", "longest chain", "idle", "written", "read"]
    rows = [
        [
            str(one.n_workers),
            span(one.seconds),
            span(one.chain_s),
            f"{one.idle_share:.0%}",
            decimal(one.bytes_written),
            decimal(one.bytes_read),
        ]
        for one in found
    ]
    return table(header, rows, "rrrrrr")


def _flops(gflops: float) -> str:
    return f"{_shown(gflops / 1e6)} PFLOP" if gflops >= 1e5 else f"{_shown(gflops)} GFLOP"


def _shown(number: float) -> str:
    """Return a number with at least three digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
