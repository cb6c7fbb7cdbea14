"""`status`: show the progress of experiments, and why trials failed."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spar_bench.cli.completion import specs_here
from spar_bench.cli.options import specs_argument, store_option
from spar_bench.cli.printing import counted, span, table
from spar_bench.errors import NotReady, SparBenchError, SpecError

if TYPE_CHECKING:
    from spar_bench.results import Status
    from spar_bench.session.planning import Standing


STANDINGS: dict["Status", str] = {
    "finished": "finished",
    "failed": "failed",
    "pruned": "pruned",
    "skipped": "to do",
}
"""The statuses of trials that `status` counts, and its names for them."""


@click.command()
@specs_argument
@store_option
def status(specs: tuple[Path, ...], store: Path) -> None:
    """Show the progress of each SPEC (default: all in experiments/), and why trials failed.

    SPEC is a file, the name of an experiment, or a folder of specs. What a spec lacks is counted;
    it is no failure. What sweeps on the store do now, on whatever hosts, comes first.
    """
    _show_running(store)
    from spar_bench.conflicts import spec_files
    from spar_bench.session.planning import standing
    from spar_bench.spec.read import experiment_name

    rows, remarks, problems = list[list[str]](), list[str](), list[str]()
    for path in [file for spec in specs for file in spec_files(spec)] or _own_specs():
        try:
            found = standing(path, store=store)
        except SparBenchError as error:
            lack = _lack(error, is_named=bool(specs))
            if not lack:
                problems.append(str(error))
                continue
            rows.append([experiment_name(path), "", *("" for _ in STANDINGS), lack])
            remarks.append(f"what to fix: spar-bench check --ready {shlex.quote(str(path))}")
        else:
            rows.append(_row(found))
            name = found.loaded.experiment
            remarks += [f"{name}/{trial}: {why}" for trial, why in found.failures.items()]
    if rows:
        header = ["experiment", "trials", *STANDINGS.values(), ""]
        click.echo("\n".join([table(header, rows, "lrrrrr"), *remarks]))
    if problems:
        raise SparBenchError("\n".join(problems))


def _show_running(store: Path) -> None:
    """Print what sweeps do now; nothing if none runs."""
    from spar_bench.opening import open_store
    from spar_bench.session.beacon import running

    for one in running(open_store(store, make=False)):
        left = "" if one.seconds_left is None else f", about {span(one.seconds_left)} left"
        failed = f", {one.n_failed} failed" if one.n_failed else ""
        click.echo(
            f"{one.sweep}, swept by process {one.pid} on {one.host}: {one.n_done} of "
            f"{counted(one.n_stages, 'stage')}{failed}{left}"
        )
        rows = [
            [
                f"  {'helps ' if work.helps else ''}{work.kind}",
                work.node,
                work.device,
                "" if work.helps else f"{work.share:.0%}",
                "" if work.seconds_left is None else span(work.seconds_left),
                work.trials,
            ]
            for work in one.work
        ]
        if rows:
            header = ["  stage", "node", "device", "progress", "left", "trial"]
            click.echo(table(header, rows, "lllrrl"))
        click.echo()


def _row(found: "Standing") -> list[str]:
    counts = [found.n_trials.get(state, 0) for state in STANDINGS]
    return [found.loaded.experiment, str(sum(counts)), *map(str, counts), _besides(found)]


def _besides(found: "Standing") -> str:
    """Return what is to do once all trials are run, unless a trial is to do anyway."""
    if found.n_trials.get("skipped") or not found.to_do:
        return ""
    return f"{', '.join(found.to_do)} to do"


def _lack(error: SparBenchError, *, is_named: bool) -> str:
    """Return in two words why a spec has no progress, or "" for what must be reported as it is."""
    if isinstance(error, NotReady):
        return f"{len(str(error).splitlines())} missing"
    return "has mistakes" if isinstance(error, SpecError) and not is_named else ""


def _own_specs() -> list[Path]:
    found = specs_here()
    if not found:
        raise SparBenchError(
            "experiments/: must hold specs, but has no YAML file; name one, or write one "
            "with `spar-bench init`"
        )
    return found
