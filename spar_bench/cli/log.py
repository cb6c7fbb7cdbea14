"""What is said beside the output: our own log in full, of the libraries' only errors."""

import logging
import sys

import click


class Echo(logging.Handler):
    """Prints to standard error as it is now: a live table stands in for it while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        click.echo(self.format(record), err=True)


def show_our_log() -> None:
    """Print what the package itself has to say."""
    log = logging.getLogger("spar_bench")
    if not log.handlers:
        handler = Echo()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


def quieten_libraries() -> None:
    """Keep libraries' warnings to their developers out of a table that is being drawn."""
    root = logging.getLogger()
    if not root.handlers:  # else whoever calls us has said what is to be logged
        handler = Echo()
        handler.setLevel(logging.ERROR)
        root.addHandler(handler)
    if not sys.warnoptions:
        logging.captureWarnings(True)
