"""The command line: parse, one call into the library, print; one file a command.

Everything heavy is imported inside the command that needs it, so that `--help` answers at once.
"""

from typing import Any

import click

from spar_bench import __version__
from spar_bench.cli import (
    backbones,
    cache,
    check,
    completion,
    datasets,
    doctor,
    explain,
    export,
    families,
    import_,
    init,
    mirror,
    plan,
    report,
    status,
    sweep,
    ui,
    work,
)
from spar_bench.cli.log import quieten_libraries, show_our_log
from spar_bench.cli.stopping import INTERRUPTED
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
    *(init.init, check.check, plan.plan, sweep.sweep, report.report, mirror.mirror, ui.ui),
    *(work.work, status.status, explain.explain, cache.cache, import_.import_, export.export),
    *(doctor.doctor, backbones.backbones, datasets.datasets, families.losses, families.refiners),
    completion.completion,
):
    main.add_command(command)
