"""The command line: parse, one call into the library, print; one file a command.

Everything heavy is imported inside the command that needs it, so that `--help` answers at once.
"""

import atexit
import gc
import sys
from importlib import import_module
from typing import Any

import click
from click.exceptions import NoSuchCommand

from spar_bench import __version__
from spar_bench.cli.log import quieten_libraries, show_our_log
from spar_bench.cli.stopping import INTERRUPTED
from spar_bench.errors import SparBenchError

COMMANDS = (
    *("init", "check", "plan", "sweep", "report", "mirror", "ui", "work", "status", "explain"),
    *("cache", "import", "export", "doctor", "backbones", "datasets", "losses", "refiners"),
    *("pull", "push", "completion"),
)
_ELSEWHERE = {
    "import": "import_:import_",
    "losses": "families:losses",
    "pull": "transfer:pull",
    "push": "transfer:push",
    "refiners": "families:refiners",
}
"""Modules and names of commands that are not named after themselves."""


class Main(click.Group):
    """Prints our own errors as one line each, exit code 2; bugs keep their traceback.

    A command is imported when it is asked for.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = _ELSEWHERE.get(cmd_name, f"{cmd_name}:{cmd_name}").split(":")
        command: click.Command = getattr(import_module(f"spar_bench.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was asked for, or suggest others."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            raise NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

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
    atexit.register(_leave_at_once)
    quieten_libraries()
    show_our_log()


def _leave_at_once() -> None:
    """Keep Python from looking through all objects before it frees them, as it ends.

    Not with Triton, which would tell the user that they leaked.
    """
    if "triton" not in sys.modules:
        gc.freeze()
