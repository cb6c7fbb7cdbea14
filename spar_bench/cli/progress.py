"""How a sweep is shown while it runs: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from spar_bench.cli.printing import span
from spar_bench.cli.stopping import STOPPING, Stopper
from spar_bench.engine.events import Event
from spar_bench.plan.trials import Plan
from spar_bench.session.beacon import Beacon
from spar_bench.session.tally import Doing, Tally
from spar_bench.session.watcher import Watcher
from spar_bench.stages.base import Stage
from spar_bench.store import Store

LINE_EVERY_S = 30.0
"""Seconds between progress lines of one stage where there is no terminal."""
TROUBLES = ("failed", "damaged", "waiting", "left", "pruned")
BAR_CELLS, NARROW_CELLS = 20, 80
"""Width of the bar in characters, and the terminal width below which it is left out."""


@contextmanager
def watching(name: str, stopper: Stopper) -> Iterator[Watcher]:
    """Show a sweep until it ends: in place on a terminal, line by line elsewhere.

    Other terminals see it by its name in `status`.
    """
    beacon = Beacon(name)
    try:
        with _shown(beacon, stopper) as watcher:
            yield watcher
    finally:
        beacon.end()


@contextmanager
def _shown(beacon: Beacon, stopper: Stopper) -> Iterator[Watcher]:
    console = Console(stderr=True, highlight=False)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield Lines(beacon)
        return
    board = Board(console, stopper, beacon)
    # It replaces the streams that commands and logs print to: their lines stay above the table.
    with Live(console=console, refresh_per_second=4, get_renderable=board.render):
        stopper.is_shown = True
        try:
            yield board
        finally:
            stopper.is_shown = False


class _Shown(Tally):
    """A tally that other terminals see."""

    def __init__(self, beacon: Beacon | None = None) -> None:
        super().__init__()
        self._beacon = beacon or Beacon("")

    def planned(self, plan: Plan, store: Store) -> None:
        """Take a plan."""
        super().planned(plan, store)
        self._beacon.begin(store)

    def note(self, event: Event, stage: Stage) -> None:
        """Record what happened to a stage."""
        super().note(event, stage)
        self._beacon.show(self)


class Lines(_Shown):
    """Prints a line when a stage starts, ends or fails, and occasionally in between."""

    def __init__(self, beacon: Beacon | None = None) -> None:
        super().__init__(beacon)
        self._said_at = time.monotonic()

    def note(self, event: Event, stage: Stage) -> None:
        """Print what happened to a stage; the progress of a long one now and then."""
        super().note(event, stage)
        named = f"{stage.kind} {stage.fingerprint[:12]}"
        if event.kind != "progress":
            detail = f": {event.text}" if event.text else ""
            counts = self._counts()
            self._say(f"{event.kind} {named} ({self.trials_of(stage)}){detail} [{counts}]")
        elif time.monotonic() - self._said_at > LINE_EVERY_S:
            self._say(f"{event.share:4.0%} {named} [{self._counts()}]")

    def _counts(self) -> str:
        """Return done, failed, blocked and time left in words."""
        left = self.seconds_left()
        parts = [f"{self.n_done()} stages"]
        parts += [f"{len(lost)} {outcome}" for outcome, lost in self.lost.items() if lost]
        if left is not None and len(self.done) < len(self.plan.stages):
            parts.append(f"about {span(left)} left")
        return ", ".join(parts)

    def _say(self, line: str) -> None:
        click.echo(line, err=True)
        self._said_at = time.monotonic()


class Board(_Shown):
    """A table that is redrawn in place; failures are printed above it and stay."""

    def __init__(self, console: Console, stopper: Stopper, beacon: Beacon | None = None) -> None:
        super().__init__(beacon)
        self._console, self._stopper = console, stopper
        self._trouble = ""

    def note(self, event: Event, stage: Stage) -> None:
        """Record what happened; print failures."""
        super().note(event, stage)
        note, text = event.kind, event.text
        # Stages that depend on a pruned student have the same reason, which is not shown twice.
        if note in TROUBLES and not (note == "pruned" and text == self._trouble):
            self._trouble = text
            line = f"{note} {stage.kind} {stage.fingerprint[:12]} ({self.trials_of(stage)}): {text}"
            self._console.print(escape(line), soft_wrap=True)

    def render(self) -> Table:
        """Draw what is made: one worker with the numbers of the sweep, or a line for each."""
        board = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        board.add_column("stage", no_wrap=True, min_width=8)
        board.add_column("trial", no_wrap=True, overflow="ellipsis", ratio=1)
        if len(self.doing) > 1:
            self._draw_workers(board)
        else:
            self._draw_one(board)
        if self._stopper.event.is_set():
            board.caption = f"{board.caption}\n{STOPPING}" if board.caption else STOPPING
        board.caption_justify = "left"
        return board

    def _draw_one(self, board: Table) -> None:
        for name in ("progress", "done", "failed", "left"):
            board.add_column(name, no_wrap=True, justify="left" if name == "progress" else "right")
        doing = next(iter(self.doing.values()), None)
        board.add_row(
            _named(doing) if doing else "" if self.plan.stages else "starting",
            escape(doing.trials) if doing else "",
            self._progress(doing) if doing else "",
            self.n_done(),
            str(len(self.lost["failed"])),
            _span(self.seconds_left()),
        )

    def _draw_workers(self, board: Table) -> None:
        for name in ("node", "device", "progress", "left"):
            board.add_column(name, no_wrap=True, justify="right" if name == "left" else "left")
        for one in self.doing.values():
            where = escape(one.node), escape(one.device)
            left = _span(one.seconds_left)
            board.add_row(_named(one), escape(one.trials), *where, self._progress(one), left)
        lost = "".join(f", {len(them)} {how}" for how, them in self.lost.items() if them)
        of_all = self.seconds_left()
        about = "" if of_all is None else f", about {span(of_all)} left"
        board.caption = f"{self.n_done()} stages{lost}{about}"

    def _progress(self, doing: Doing) -> str:
        if doing.helps:
            return ""
        bar = f"{_bar(doing.share)} " if self._console.width >= NARROW_CELLS else ""
        return f"{bar}{doing.share:4.0%}"


def _named(doing: Doing) -> str:
    return f"helps {doing.stage.kind}" if doing.helps else doing.stage.kind


def _span(seconds: float | None) -> str:
    return "" if seconds is None else span(seconds)


def _bar(share: float) -> str:
    filled = round(share * BAR_CELLS)
    return "█" * filled + "░" * (BAR_CELLS - filled)
