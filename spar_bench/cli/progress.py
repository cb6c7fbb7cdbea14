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
from spar_bench.plan.devices import STAGE_S, Speed, assumed_speed
from spar_bench.plan.trials import Plan, Trial
from spar_bench.session.collect import Collector
from spar_bench.session.watcher import Watcher
from spar_bench.stages.base import Stage
from spar_bench.store import Store

LINE_EVERY_S = 30.0
"""Seconds between progress lines of one stage where there is no terminal."""
TROUBLES = ("failed", "damaged", "waiting", "pruned")
BAR_CELLS, NARROW_CELLS = 20, 80
"""Width of the bar in characters, and the terminal width below which it is left out."""
PLAN_S = 60.0
"""Seconds of work in which what was planned counts as much as how fast it goes."""


@contextmanager
def watching(stopper: Stopper) -> Iterator[Watcher]:
    """Show a sweep until it ends: in place on a terminal, line by line elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield Lines()
        return
    board = Board(console, stopper)
    # It replaces the streams that commands and logs print to: their lines stay above the table.
    with Live(console=console, refresh_per_second=4, get_renderable=board.render):
        stopper.is_shown = True
        try:
            yield board
        finally:
            stopper.is_shown = False


class Tally:
    """The state of a sweep's stages, and how long the rest may take.

    `lost` has the stages that are not made, by how they ended.
    """

    def __init__(self) -> None:
        self.plan = Plan()
        self.done: set[str] = set()
        self.lost = {outcome: frozenset[str]() for outcome in ("failed", "blocked", "pruned")}
        self.current: Stage | None = None
        self.current_trials = ""
        self.share = 0.0
        self._trials: dict[str, list[Trial]] = {}
        self._work: dict[str, float] = {}
        self._key: dict[str, str] = {}
        self._computing: set[str] = set()
        self._begun: tuple[float, float] | None = None
        self._speed: Speed | None = (
            None  # known with the first plan, and kept for those of a search
        )

    def planned(self, plan: Plan, store: Store) -> None:
        """Take a plan and its finished stages; a search replaces it by its next plan."""
        collector, ahead = Collector("", plan, store), dict[str, list[Stage]]()
        done, keys = set[str](), dict[str, str]()
        for fingerprint, stage in plan.stages.items():
            state = collector.state(fingerprint)
            if state.status == "finished":
                done.add(fingerprint)
            elif not state.final:
                keys[fingerprint] = stage.batch_key
                ahead.setdefault(stage.batch_key, []).append(stage)
        speed = self._speed = self._speed or assumed_speed(store.finished(), None)
        work = {key: speed.seconds(batch, plan.stages) for key, batch in ahead.items()}
        self._computing = {key for key, seconds in work.items() if seconds > 2 * STAGE_S}
        # In one assignment: another thread draws the live table.
        self.plan, self.done, self._work, self._key = plan, done, work, keys
        self._trials = plan.trials_by_stage()
        self._begun = None

    def note(self, event: Event, stage: Stage) -> None:
        """Record what happened to a stage."""
        note = event.kind
        if note == "progress":
            self._go_on(stage, event.share)
        elif note in ("started", "waiting"):
            self._turn_to(stage)
        elif note in ("made", "found"):
            self.done = self.done | {stage.fingerprint}
        elif note in self.lost:
            self.lost[note] |= {stage.fingerprint}
        if note in ("made", "found", "failed", "pruned") and self.current is stage:
            self.current = None

    def _go_on(self, stage: Stage, share: float) -> None:
        if self.current is not stage:
            self._turn_to(stage)
        self.share = share
        computes = self._key.get(stage.fingerprint) in self._computing
        # Imports and the loading of weights end before the first report of a stage that computes.
        if self._begun is None and computes:
            self._begun = time.monotonic(), self._worked()

    def seconds_left(self) -> float | None:
        """Return the time left as planned, and more and more at the speed so far.

        The speed is that since a stage first reported arithmetic: what comes before is start-up.
        None if nothing is ahead.
        """
        if not self._work:
            return None
        worked, pace = self._worked(), 1.0
        if self._begun is not None:
            when, worked_then = self._begun
            pace = (PLAN_S + time.monotonic() - when) / (PLAN_S + worked - worked_then)
        return pace * (sum(self._work.values()) - worked)

    def _worked(self) -> float:
        """Return how much of the work ahead is done, in planned seconds."""
        work, keys, current = self._work, self._key, self.current
        ended = self.done.union(*self.lost.values())
        ended = {keys[fingerprint] for fingerprint in ended if fingerprint in keys}
        worked = sum(ahead for key, ahead in work.items() if key in ended)
        if current is not None and (key := keys.get(current.fingerprint, "")) not in ended:
            worked += self.share * work.get(key, 0.0)
        return worked

    def n_done(self) -> str:
        """Return how many stages are finished, out of how many."""
        return f"{len(self.done)}/{len(self.plan.stages)}"

    def trials_of(self, stage: Stage) -> str:
        """Return the trials that a stage is made for, shortened."""
        names = [trial.name for trial in self._trials.get(stage.fingerprint, [])]
        if stage.kind == "latency" or not names:
            return "all"
        return names[0] + (f" and {len(names) - 1} more" if names[1:] else "")

    def _turn_to(self, stage: Stage) -> None:
        self.current, self.current_trials, self.share = stage, self.trials_of(stage), 0.0


class Lines(Tally):
    """Prints a line when a stage starts, ends or fails, and occasionally in between."""

    def __init__(self) -> None:
        super().__init__()
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


class Board(Tally):
    """A table that is redrawn in place; failures are printed above it and stay."""

    def __init__(self, console: Console, stopper: Stopper) -> None:
        super().__init__()
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
        """Draw the current stage and the numbers of the sweep, in three lines at most."""
        board = Table(show_header=True, box=None, pad_edge=False, header_style="bold", expand=True)
        board.add_column("stage", no_wrap=True, min_width=8)
        board.add_column("trial", no_wrap=True, overflow="ellipsis", ratio=1)
        for name in ("progress", "done", "failed", "left"):
            board.add_column(name, no_wrap=True, justify="left" if name == "progress" else "right")
        stage, left = self.current, self.seconds_left()
        bar = f"{_bar(self.share)} " if self._console.width >= NARROW_CELLS else ""
        board.add_row(
            stage.kind if stage else "" if self.plan.stages else "starting",
            escape(self.current_trials) if stage else "",
            f"{bar}{self.share:4.0%}" if stage else "",
            self.n_done(),
            str(len(self.lost["failed"])),
            "" if left is None else span(left),
        )
        if self._stopper.event.is_set():
            board.caption, board.caption_justify = STOPPING, "left"
        return board


def _bar(share: float) -> str:
    filled = round(share * BAR_CELLS)
    return "█" * filled + "░" * (BAR_CELLS - filled)
