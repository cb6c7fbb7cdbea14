"""The command line: parse, one call into the library, print.

Everything heavy is imported inside the command that needs it, so that `--help` answers at once.
"""

from typing import Any

import click

from spar_bench import __version__
from spar_bench.cli.backbones import backbones_command, export, import_
from spar_bench.cli.data import datasets
from spar_bench.cli.inspect import check, explain, init, status
from spar_bench.cli.log import quieten_libraries, show_our_log
from spar_bench.cli.machine import completion_command, doctor, losses, refiners
from spar_bench.cli.run import plan, report, sweep, ui
from spar_bench.cli.stopping import INTERRUPTED
from spar_bench.cli.store import cache
from spar_bench.errors import SparBenchError


class Main(click.Group):
    """Prints our own errors as one line each, exit code 2; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except SparBenchError as error:
            click.echo(str(error), err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="spar-bench")
def main() -> None:
    """Measure what a finer sliding window buys, what it costs, and whether one pass gets there.

    Begin with `spar-bench sweep experiments/stride.yaml`, then `spar-bench report`.
    """
    quieten_libraries()
    show_our_log()


for command in (
    *(init, check, plan, sweep, report, ui, status, explain, cache),
    *(import_, export, doctor, backbones_command, datasets, losses, refiners),
    completion_command,
):
    main.add_command(command)
