"""Whom idle slots help: stages that take long, and whose images several processes can share."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from spar_bench.backends.base import Backend
from spar_bench.engine.events import Emit, Event
from spar_bench.stages.base import Stage

WORTH_S = 15.0
"""Seconds that a stage must be expected to take yet: a helper first loads libraries and weights."""


@dataclass
class Helping:
    """The batches that are being made, by whomever, by their first stage; and who helps them."""

    backend: Backend
    notify: Emit
    clock: Callable[[], float] = time.monotonic
    n_helpers: int = 0
    _known: dict[str, "_Making"] = field(default_factory=dict)

    def begin(self, batch: list[Stage]) -> None:
        """Note that a batch is made from now on; of another sweep's, more may be known later."""
        if batch[0].helper:
            making = _Making(batch, self.clock())
            known = self._known.setdefault(batch[0].fingerprint, making)
            if not known.n_helpers:
                known.batch = batch

    def go_on(self, fingerprint: str, share: float) -> None:
        """Note how much of a stage is done."""
        if fingerprint in self._known:
            self._known[fingerprint].share = share

    def end(self, fingerprints: Iterable[str]) -> None:
        """Forget stages that nobody makes any more."""
        for fingerprint in fingerprints:
            self._known.pop(fingerprint, None)

    def help(self) -> bool:
        """Have an idle slot help the batch that has the fewest helpers; return whether one does."""
        worth = [one for one in self._known.values() if one.is_worth_it(self.clock())]
        if not worth:
            return False
        chosen = min(worth, key=lambda one: one.n_helpers)
        if not self.backend.room(chosen.batch[0]):
            return False
        chosen.n_helpers += 1
        self.n_helpers += 1
        self.backend.help(chosen.batch, self._ended(chosen))
        return True

    def _ended(self, made: "_Making") -> Emit:
        left = {stage.fingerprint for stage in made.batch}

        def receive(event: Event) -> None:
            self.notify(event)
            if event.kind == "helped":
                left.discard(event.fingerprint)
                if not left:
                    made.n_helpers -= 1
                    self.n_helpers -= 1
                    made.is_shared_out = True

        return receive


@dataclass
class _Making:
    """A batch that is being made; `is_shared_out` once a helper found no part that is free."""

    batch: list[Stage]
    since: float
    share: float = 0.0
    n_helpers: int = 0
    is_shared_out: bool = False

    def is_worth_it(self, now: float) -> bool:
        """Return whether it has gone on for a while, and would for another."""
        passed_s = now - self.since
        left_s = passed_s * (1 - self.share) / self.share if self.share else WORTH_S
        return not self.is_shared_out and passed_s >= WORTH_S / 3 and left_s >= WORTH_S
