"""Run the benchmarks and print each figure with its bar: `python -m benchmarks [GROUP]...`."""

import json
import platform
from dataclasses import asdict
from pathlib import Path

import click
import torch

from benchmarks.commands import commands, first_run
from benchmarks.figures import Figure
from benchmarks.reading import reading, roof_gflops
from benchmarks.training import training
from spar_bench.files import replace_text
from spar_bench.run.context import Context, device_name
from spar_bench.run.load import other_cores, usage_now
from spar_bench.store import Store

GROUPS = {"reading": reading, "training": training, "commands": commands, "first_run": first_run}
_RESULTS = Path(__file__).parent / "results"


@click.command()
@click.argument("groups", nargs=-1, type=click.Choice(list(GROUPS)))
@click.option("--save", metavar="NAME", help="Write the figures to benchmarks/results/NAME.json.")
def main(groups: tuple[str, ...], save: str | None) -> None:
    """Measure GROUPS, by default all: about 20 minutes on two cores, most of it the first run."""
    before, found = usage_now(), list[Figure]()
    roof = roof_gflops()
    click.echo(f"{device_name(torch.device('cpu'))}: roof {roof:.0f} GFLOP/s in float32\n")
    for group in groups or GROUPS:
        for figure in GROUPS[group]():
            click.echo(str(figure))
            found.append(figure)
    if save is not None:
        path = _RESULTS / f"{save}.json"
        replace_text(path, json.dumps(_document(found, roof), indent=1) + "\n")
        click.echo(f"\n{path}")
    busy = other_cores(before, usage_now())
    click.echo(f"\nothers kept {busy or 0:.1f} cores busy; commands count as others")


def _document(found: list[Figure], roof: float) -> dict[str, object]:
    made = Context(Store(Path(".spar_bench"), make=False), torch.device("cpu")).made()
    machine = {key: made[key] for key in ("device", "threads", "python", "versions", "commit")}
    figures = [{**asdict(one), "verdict": one.verdict} for one in found]
    return {"machine": {**machine, "system": platform.platform()}, "roof": roof, "figures": figures}


if __name__ == "__main__":
    main()
