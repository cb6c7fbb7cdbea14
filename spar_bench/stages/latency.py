"""Interleaved timings of all ways to read an image in a sweep, in one session on one machine."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from spar_bench.stage import Finished, digest
from spar_bench.stages import base, cost
from spar_bench.stages.base import Estimate

VERSION = 4
LATENCY_FILE = "latency.json"
_BYTES_EACH = 4_000
_PASSES = 5
"""Passes that an estimate counts: warm-up, three rounds and one for memory."""


class Machine(base.Settings):
    """What timings depend on besides what is timed: equal, or not comparable."""

    host: str
    device: str
    threads: int
    torch: str
    batch: int = 1


class Settings(base.Settings):
    """What is timed, by the digest of its cost's settings; where; and the time given to each."""

    timed: dict[str, cost.Settings]
    machine: Machine | None
    seconds: float


class Places(base.Places):
    """A backbone and a refiner that can be built, for each of what is timed."""

    timed: dict[str, cost.Places]


class Summary(base.Summary):
    """How many were timed."""

    n_timed: int


class Stage(base.Stage):
    """The one session of a sweep; it takes the whole machine."""

    kind: ClassVar[str] = "latency"
    version: ClassVar[int] = VERSION
    maker: ClassVar[str] = "spar_bench.run.latency:make_latency"
    alone: ClassVar[bool] = True

    settings: Settings
    places: Places

    @classmethod
    def of(cls, costs: Iterable[cost.Stage], machine: Machine | None, *, seconds: float) -> Self:
        """Return the session in which the reading of each cost is timed."""
        by_key = {key_of(one): one for one in costs}
        return cls(
            settings=Settings(
                timed={key: by_key[key].settings for key in sorted(by_key)},
                machine=machine,
                seconds=seconds,
            ),
            places=Places(timed={key: one.places for key, one in by_key.items()}),
        )

    @property
    def title(self) -> str:
        """How many are timed."""
        return f"latency of {len(self.settings.timed)} ways to read an image"

    def estimate(self, stages: Mapping[str, base.Stage]) -> Estimate:
        """Return the work of a few passes of each."""
        flops = _PASSES * sum(one.flops for one in self.settings.timed.values())
        return Estimate(flops / 1e9, _BYTES_EACH * len(self.settings.timed))


def key_of(stage: cost.Stage) -> str:
    """Return the key of a cost's timings."""
    return digest(stage.settings.model_dump(mode="json"))


def read_timings(finished: Finished) -> dict[str, dict[str, Any]]:
    """Return percentiles, samples and memory of each, by the key of its cost."""
    timings: dict[str, dict[str, Any]] = json.loads(
        finished.path(LATENCY_FILE).read_text(encoding="utf-8")
    )
    return timings
