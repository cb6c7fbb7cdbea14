"""`explain`: show where every number of a trial comes from."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spar_bench.cli.completion import swept_trials
from spar_bench.cli.options import store_option
from spar_bench.cli.printing import span, table

if TYPE_CHECKING:
    from spar_bench.session.provenance import Explained, Told
    from spar_bench.stage import Finished


@click.command()
@click.argument("trial", shell_complete=swept_trials)
@store_option
def explain(trial: str, store: Path) -> None:
    """Show where every number of TRIAL comes from: stages, machine, versions, commit.

    Of a stage that failed, the last lines of its log are shown, whoever made it.
    """
    from spar_bench.session.provenance import explain as trace

    click.echo("\n\n".join(_explanation(explained) for explained in trace(trial, store=store)))


NUMBERS = ["miou", "gflops", "params_m", "latency_p50_ms", "encoder_p50_ms", "peak_mib"]
"""The numbers of a row that are explained."""


def _explanation(explained: "Explained") -> str:
    from spar_bench.results import MADE_BY  # late: it needs pydantic

    row = explained.row
    place = f"{row.method} on {row.dataset} at {row.eval_short_side_px} px"
    lines = [f"{row.experiment}/{row.trial}  {place}  {row.status}"]
    if row.reason:
        lines.append(f"  {row.reason}")
    cells = []
    for name in NUMBERS:
        kind = MADE_BY[name]
        value = row.miou if name == "miou" else getattr(row.cost, name)
        source = f"{kind} {row.stages.get(kind, '')[:12]}"
        known = [f"{value:.6g}", source] if value is not None else ["not measured", ""]
        cells.append([f"  {name}", *known])
    for kind, found in row.probes.items():
        source = f"{kind} {row.stages[kind][:12]}"
        cells += [[f"  {kind}.{name}", str(value), source] for name, value in found.items()]
    lines.append(table(["  number", "value", "stage"], cells))
    if row.cost.latency_note:
        lines.append(f"  latency is as on a loaded machine: {row.cost.latency_note}")
    for key, told in explained.failed.items():
        lines += _failed(key, told)
    for stage in explained.stages.values():
        lines += _made(stage)
    if row.status == "finished":
        gone = [key for key in row.stages.values() if key not in explained.stages]
        lines += [f"  {key[:12]}  is no longer in the store" for key in gone]
    return "\n".join(lines)


def _failed(fingerprint: str, told: "Told") -> list[str]:
    """Describe when and where a stage failed, and what was said meanwhile."""
    failure = told.failure
    at = datetime.fromtimestamp(failure.at_ms / 1000).astimezone().isoformat(timespec="seconds")
    lines = [
        f"  {told.kind} {fingerprint[:12]}",
        f"    {failure.outcome} {at}" + (f" on {failure.where}" if failure.where else ""),
        f"    {failure.reason}",
    ]
    if told.lines:
        lines += [f"    the end of {told.log}:", *(f"    | {line}" for line in told.lines)]
    return lines


def _made(stage: "Finished") -> list[str]:
    """Describe how a stage was made, and from what."""
    made, inputs = stage.manifest["made"], stage.manifest["inputs"]
    ended = datetime.fromtimestamp(made["ended_ms"] / 1000).astimezone()
    sources = ", ".join(f"{role} {key[:12]}" for role, key in inputs.items())
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    helpers = ", ".join(made.get("helped_by", []))
    batch = made.get("window_batch")  # None without windows; older manifests do not have it
    return [
        f"  {stage.manifest['kind']} {stage.fingerprint[:12]}"
        + (f" from {sources}" if sources else ""),
        f"    made {ended.isoformat(timespec='seconds')} in {span(made['seconds'])} on "
        f"{made['device']} ({made['host']})"
        + (f", helped by {helpers}" if helpers else "")
        + (f", {batch} windows at once" if batch else ""),
        f"    commit {made['commit'] or 'not known'}; {versions}",
        f"    {stage.place}",
    ]
