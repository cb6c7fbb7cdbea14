"""Commands about specs and their sweeps that run nothing: init, check, status, explain."""

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spar_bench.cli.completion import spec_files, specs_here, swept_trials
from spar_bench.cli.options import HomePath, counted, span, store_option, table
from spar_bench.errors import NotReady, SparBenchError, SpecError, naming

if TYPE_CHECKING:
    from spar_bench.results import Status
    from spar_bench.session.read import Explained, Standing
    from spar_bench.stage import Finished


@click.command()
@click.argument("path", type=HomePath(), default=Path("experiments/first.yaml"))
def init(path: Path) -> None:
    """Write a commented spec to begin from to PATH (default: experiments/first.yaml)."""
    from spar_bench.files import replace_text, writing
    from spar_bench.spec.starter import starter

    if path.exists():
        raise SparBenchError(f"{path}: must be a new file, but already exists; name another")
    with writing(path.parent):
        replace_text(path, starter())
    named = shlex.quote(str(path))
    click.echo(f"wrote {path}; next: spar-bench plan {named}, then spar-bench sweep {named}")


@click.command()
@click.argument(
    "specs",
    nargs=-1,
    required=True,
    type=HomePath(),
    metavar="SPEC...",
    shell_complete=spec_files,
)
@click.option(
    "--ready", is_flag=True, help="Exit with 2 when plug-ins, weights or data are missing."
)
def check(specs: tuple[Path, ...], ready: bool) -> None:
    """Read each SPEC and report every mistake; list what is missing or probably not intended."""
    from spar_bench.resolve import Resolver
    from spar_bench.session.choice import first_points, n_trials
    from spar_bench.session.ready import missing
    from spar_bench.session.remarks import remarks
    from spar_bench.spec import read_spec

    problems: list[str] = []
    lacking: list[str] = []
    for path in specs:
        try:
            with naming(path):
                loaded = read_spec(path)
                resolver = Resolver()
                gaps = missing(loaded, resolver)
                said = remarks((point.settings for point in first_points(loaded)), resolver)
        except SpecError as error:
            problems.extend(error.problems)
            continue
        lacking.extend(gaps)
        trials = counted(n_trials(loaded.points, loaded.spec.seeds), "trial")
        found = "a search" if loaded.search else trials
        click.echo(f"{path}: is valid, {found}" + (f", {len(gaps)} missing:" if gaps else ""))
        for line in gaps:
            click.echo(f"  {line}")
        if gaps and said:
            click.echo("  and probably not intended:")
        for line in said:
            click.echo(f"  {line}")
    if problems:
        raise SpecError(*problems)
    if lacking and ready:
        raise NotReady(
            f"--ready: weights and data must be there, but {len(lacking)} of them, listed above, "
            "are missing; put them there"
        )


STANDINGS: dict["Status", str] = {
    "finished": "finished",
    "failed": "failed",
    "pruned": "pruned",
    "skipped": "to do",
}
"""The statuses of trials that `status` counts, and its names for them."""


@click.command()
@click.argument(
    "specs",
    nargs=-1,
    type=HomePath(),
    metavar="[SPEC]...",
    shell_complete=spec_files,
)
@store_option
def status(specs: tuple[Path, ...], store: Path) -> None:
    """Show the progress of each SPEC (default: all in experiments/), and why trials failed."""
    from spar_bench.session.read import standing
    from spar_bench.spec.read import experiment_name

    rows, failures, problems, unready = [], [], [], list[Path]()
    for path in specs or _own_specs():
        try:
            found = standing(path, store=store)
        except SparBenchError as error:
            lack = "" if specs else _lack(error)
            if lack:
                rows.append([experiment_name(path), "", *("" for _ in STANDINGS), lack])
                unready.append(path)
            else:
                problems.append(str(error))
            continue
        counts = [found.n_trials.get(state, 0) for state in STANDINGS]
        rows.append([found.loaded.experiment, str(sum(counts)), *map(str, counts), _besides(found)])
        failures += [f"{found.loaded.experiment}/{n}: {why}" for n, why in found.failures.items()]
    if rows:
        header = ["experiment", "trials", *STANDINGS.values(), ""]
        click.echo(table(header, rows, right="lrrrrr"))
    for line in failures:
        click.echo(line)
    for path in unready:
        click.echo(f"what to fix: spar-bench check --ready {shlex.quote(str(path))}")
    if problems:
        raise SparBenchError("\n".join(problems))


def _besides(found: "Standing") -> str:
    """Say what is to do once all trials are run, unless a trial that is to do says so already."""
    if found.n_trials.get("skipped") or not found.to_do:
        return ""
    return f"{', '.join(found.to_do)} to do"


def _lack(error: SparBenchError) -> str:
    """Say in two words why a spec cannot be swept; nothing for any other problem."""
    if isinstance(error, NotReady):
        return f"{len(str(error).splitlines())} missing"
    return "has mistakes" if isinstance(error, SpecError) else ""


def _own_specs() -> list[Path]:
    found = specs_here()
    if not found:
        raise SparBenchError(
            "experiments/: must hold specs, but has no YAML file; name one, or write one "
            "with `spar-bench init`"
        )
    return found


@click.command()
@click.argument("trial", shell_complete=swept_trials)
@store_option
def explain(trial: str, store: Path) -> None:
    """Show where every number of TRIAL comes from: stages, machine, versions, commit."""
    from spar_bench.session.read import explain as trace

    click.echo("\n\n".join(_explanation(one) for one in trace(trial, store=store)))


NUMBERS = {
    "miou": "evaluate",
    "gflops": "cost",
    "params_m": "cost",
    "latency_p50_ms": "latency",
    "encoder_p50_ms": "latency",
    "peak_mib": "latency",
}
"""The numbers of a row, each mapped to its stage."""


def _explanation(one: "Explained") -> str:
    row = one.row
    place = f"{row.method} on {row.dataset} at {row.eval_short_side_px} px"
    lines = [f"{row.experiment}/{row.trial}  {place}  {row.status}"]
    if row.reason:
        lines.append(f"  {row.reason}")
    cells = []
    for name, kind in NUMBERS.items():
        value = row.miou if name == "miou" else getattr(row.cost, name)
        source = f"{kind} {row.stages.get(kind, '')[:12]}"
        known = [f"{value:.6g}", source] if value is not None else ["not measured", ""]
        cells.append([f"  {name}", *known])
    lines.append(table(["  number", "value", "stage"], cells))
    for stage in one.stages.values():
        lines += _made(stage)
    gone = [
        key for key in row.stages.values() if key not in one.stages and row.status == "finished"
    ]
    lines += [f"  {key[:12]}  is no longer in the store" for key in gone]
    return "\n".join(lines)


def _made(stage: "Finished") -> list[str]:
    """Describe how a stage was made, and from what."""
    made, inputs = stage.manifest["made"], stage.manifest["inputs"]
    ended = datetime.fromtimestamp(made["ended_ms"] / 1000).astimezone()
    sources = ", ".join(f"{role} {key[:12]}" for role, key in inputs.items())
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    return [
        f"  {stage.manifest['kind']} {stage.fingerprint[:12]}"
        + (f" from {sources}" if sources else ""),
        f"    made {ended.isoformat(timespec='seconds')} in {span(made['seconds'])} on "
        f"{made['device']} ({made['host']})",
        f"    commit {made['commit'] or 'not known'}; {versions}",
        f"    {stage.folder}",
    ]
