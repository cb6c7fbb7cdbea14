"""Who is told how a sweep gets on."""

from typing import Protocol

from spar_bench.engine.events import Event
from spar_bench.plan.trials import Plan
from spar_bench.stages.base import Stage
from spar_bench.store import Store


class Watcher(Protocol):
    """Receives the progress of a sweep."""

    def planned(self, plan: Plan, store: Store) -> None:
        """Receive the plan, again whenever a search adds to it."""
        ...

    def note(self, event: Event, stage: Stage) -> None:
        """Learn what happened to a stage."""
        ...


class Silent:
    """A watcher that ignores everything."""

    def planned(self, plan: Plan, store: Store) -> None:
        """Do nothing."""

    def note(self, event: Event, stage: Stage) -> None:
        """Do nothing."""
