"""How a sweep is shown while it runs: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from spar_bench.cli.options import span
from spar_bench.plan.estimate import estimate
from spar_bench.plan.stages import batch_key
from spar_bench.plan.trials import Plan
from spar_bench.run.execute import Note
from spar_bench.session.collect import Collector
from spar_bench.session.sweep import Watcher
from spar_bench.store import Stage, Store

LINE_EVERY_S = 30.0
"""Seconds between lines on the progress of one stage where there is no terminal."""
_SECONDS_A_STAGE = 1.0  # what a stage costs beside its arithmetic
_GFLOPS_A_STAGE = 60.0 * _SECONDS_A_STAGE


@contextmanager
def watching() -> Iterator[Watcher]:
    """Show a sweep until it ends: in place on a terminal, line by line elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    board = Board()
    with Live(console=Console(stderr=True), refresh_per_second=4, get_renderable=board.render):
        yield board


class Tally:
    """Where the stages of a sweep stand, and how long the rest may take."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.current: Stage | None = None
        self.share = 0.0
        self._work: dict[str, float] = {}
        self._key: dict[str, str] = {}
        self._found: set[str] = set()
        self._begun = time.monotonic()

    def planned(self, plan: Plan, store: Store) -> None:
        """Take a plan, and what of it is finished already."""
        self.plan, self._work = plan, {}
        collector = Collector("", plan, store)
        for fingerprint, stage in plan.stages.items():
            # Evaluations that share windows are made together: the dearest stands for all.
            key = batch_key(stage) if stage.kind == "evaluate" else fingerprint
            work = estimate(plan, stage).gflops + _GFLOPS_A_STAGE
            self._key[fingerprint] = key
            if collector.state(fingerprint).status == "finished":
                self.done.add(fingerprint)
                self._found.add(key)
            else:
                self._found.discard(key)
                self._work[key] = max(self._work.get(key, 0.0), work)

    def note(self, note: Note, stage: Stage, text: str) -> None:
        """Take what happened to a stage."""
        if note in ("started", "waiting"):
            self.current, self.share = stage, 0.0
        elif note == "made":
            self.done.add(stage.fingerprint)
            self.current = None
        elif note in ("failed", "blocked", "pruned"):
            self.failed.add(stage.fingerprint)

    def progress(self, stage: Stage, share: float) -> None:
        """Take the share of a stage that is done."""
        self.current, self.share = stage, share

    @property
    def seconds_left(self) -> float | None:
        """Time left at the speed so far; None before there is one."""
        ended = {
            self._key[fingerprint]
            for fingerprint in self.done | self.failed
            if fingerprint in self._key
        }
        worked = sum(work for key, work in self._work.items() if key in ended)
        if self.current is not None and self._key[self.current.fingerprint] not in ended:
            worked += self.share * self._work.get(self._key[self.current.fingerprint], 0.0)
        if worked <= 0:
            return None
        left = sum(self._work.values()) - worked
        return (time.monotonic() - self._begun) * left / worked

    def trials_of(self, stage: Stage) -> str:
        """Return the trials that a stage is made for, shortened."""
        names = [t.name for t in self.plan.trials if stage.fingerprint in self.plan.of_trial(t)]
        return names[0] + (f" and {len(names) - 1} more" if names[1:] else "") if names else "all"

    def counts(self) -> str:
        """Return done, failed and time left in words."""
        stages = self.plan.stages
        left = self.seconds_left
        parts = [f"{len(self.done & stages.keys())}/{len(stages)} stages"]
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if left is not None and len(self.done) < len(stages):
            parts.append(f"about {span(left)} left")
        return ", ".join(parts)


class Lines(Tally):
    """Prints a line when a stage starts, ends or fails, and now and then in between."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at = time.monotonic()

    def note(self, note: Note, stage: Stage, text: str) -> None:
        """Print what happened to a stage."""
        super().note(note, stage, text)
        trials = self.trials_of(stage)
        detail = f": {text}" if text else ""
        self._say(
            f"{note} {stage.kind} {stage.fingerprint[:12]} ({trials}){detail} [{self.counts()}]"
        )

    def progress(self, stage: Stage, share: float) -> None:
        """Print how far a long stage is."""
        super().progress(stage, share)
        if time.monotonic() - self._said_at > LINE_EVERY_S:
            self._say(f"{share:4.0%} {stage.kind} {stage.fingerprint[:12]} [{self.counts()}]")

    def _say(self, line: str) -> None:
        click.echo(line, err=True)
        self._said_at = time.monotonic()


class Board(Tally):
    """A table that is redrawn in place, with what went wrong above it."""

    def __init__(self) -> None:
        super().__init__()
        self._troubles: list[str] = []

    def note(self, note: Note, stage: Stage, text: str) -> None:
        """Take what happened; troubles stay in sight."""
        super().note(note, stage, text)
        if note in ("failed", "damaged", "waiting", "pruned"):
            self._troubles.append(f"{note} {stage.kind} ({self.trials_of(stage)}): {text}")

    def render(self) -> Table:
        """Draw the stage under way, and the numbers of the sweep."""
        board = Table(show_header=True, box=None, pad_edge=False, header_style="bold")
        for name in ("stage", "trial", "progress", "done", "failed", "left"):
            board.add_column(name)
        stage, left = self.current, self.seconds_left
        done = len(self.done & self.plan.stages.keys())
        board.add_row(
            stage.kind if stage else "",
            self.trials_of(stage) if stage else "",
            f"{_bar(self.share)} {self.share:4.0%}" if stage else "",
            f"{done}/{len(self.plan.stages)}",
            str(len(self.failed)),
            "" if left is None else span(left),
        )
        for trouble in self._troubles[-8:]:
            board.add_row("", trouble)
        return board


def _bar(share: float, width: int = 20) -> str:
    filled = round(share * width)
    return "█" * filled + "░" * (width - filled)
