"""Messages besides the output: our own log in full, and only errors of libraries."""

import logging
import sys

import click


class Echo(logging.Handler):
    """Prints to the current standard error, which a live table replaces while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        click.echo(self.format(record), err=True)


def show_our_log() -> None:
    """Print the log of the package itself."""
    log = logging.getLogger("spar_bench")
    if not log.handlers:
        handler = Echo()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


def quieten_libraries() -> None:
    """Keep libraries' developer warnings out of a table that is being drawn."""
    root = logging.getLogger()
    if not root.handlers:  # otherwise the caller has configured logging
        handler = Echo()
        handler.setLevel(logging.ERROR)
        root.addHandler(handler)
    if not sys.warnoptions:
        logging.captureWarnings(True)
