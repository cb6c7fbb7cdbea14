"""Interleaved timings of all ways to read an image in a sweep, in one session on one machine."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import ClassVar, Self

from spar_bench.protocol import Thresholds
from spar_bench.stage import Finished, digest
from spar_bench.stages import base, cost
from spar_bench.stages.base import Estimate
from spar_bench.validation import Part

VERSION = 10
LATENCY_FILE = "latency.json"
SLOW = 1.5
"""A median this many times the fastest pass was disturbed: clocks that change with load and heat
move it by a third at most, another process on the same cores doubles it."""
BUSY = 0.1
"""Others disturb if, of the cores that are not idle beside us, they want more than this share."""
_BYTES_EACH = 4_000
_PASSES = 5
"""Passes of a long reading, which an estimate counts: warm-up, three that are timed, memory."""


class Machine(base.Settings):
    """What timings depend on besides what is timed: equal, or not comparable."""

    host: str
    device: str
    threads: int
    torch: str
    batch: int = 1


class Timed(base.Settings):
    """What is timed: reading an image as a cost has it, and labelling its pixels.

    Only what decides the work: how many queries stand for how many classes, and which thresholds
    there are.
    """

    reading: cost.Settings
    n_classes: int
    has_background_threshold: bool
    has_area_threshold: bool

    @classmethod
    def of(cls, priced: cost.Stage, *, n_classes: int, thresholds: Thresholds) -> Self:
        """Return what is timed of the reading of a cost."""
        return cls(
            reading=priced.settings,
            n_classes=n_classes,
            has_background_threshold=thresholds.background_threshold > 0,
            has_area_threshold=thresholds.area_threshold > 0,
        )

    @cached_property
    def key(self) -> str:
        """The key of its timings."""
        return digest(self.model_dump(mode="json"))


class Settings(base.Settings):
    """What is timed, by its key; where; and the time given to each."""

    timed: dict[str, Timed]
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
    def of(
        cls,
        timed: Iterable[tuple[Timed, cost.Places]],
        machine: Machine | None,
        *,
        seconds: float,
    ) -> Self:
        """Return the session in which all this is timed; equal readings are timed once."""
        by_key = {one.key: (one, places) for one, places in timed}
        return cls(
            settings=Settings(
                timed={key: by_key[key][0] for key in sorted(by_key)},
                machine=machine,
                seconds=seconds,
            ),
            places=Places(timed={key: places for key, (_, places) in by_key.items()}),
        )

    @property
    def title(self) -> str:
        """How many are timed."""
        return f"latency of {len(self.settings.timed)} ways to read an image"

    def estimate(self, stages: Mapping[str, base.Stage]) -> Estimate:
        """Return the work of a few passes of each."""
        places = self.places.timed
        flops = _PASSES * sum(
            one.reading.flops(places[key].refiner) or 0 for key, one in self.settings.timed.items()
        )
        n_timed = len(self.settings.timed)
        return Estimate(flops / 1e9, _BYTES_EACH * n_timed, seconds=n_timed * self.settings.seconds)


class Timing(Part):
    """The passes of one reading in milliseconds, and the memory and window batch of one.

    `floor_ms` is the fastest pass, warm-up included.
    """

    latency_p10_ms: float
    latency_p50_ms: float
    latency_p90_ms: float
    encoder_p50_ms: float
    floor_ms: float
    peak_mib: float
    window_batch: int | None
    n: int
    samples_ms: list[float]


class Timings(Part):
    """All timings of a session by key, and the load under which they were made.

    `load_average` is that of the last minute before and at the end; `other_cores` is how many of
    the machine's cores others kept busy, None where the system does not tell.
    """

    load_average: tuple[float, float]
    other_cores: float | None
    n_cores: int
    n_threads: int
    by_key: dict[str, Timing]

    def note(self, key: str) -> str:
        """Return why a timing does not stand for a quiet machine; "" if it does."""
        timing, notes = self.by_key[key], list[str]()
        if timing.latency_p50_ms > SLOW * timing.floor_ms:
            times = timing.latency_p50_ms / timing.floor_ms
            notes.append(f"its median is {times:.1f} times its fastest pass")
        idle = max(self.n_cores - self.n_threads, 0)
        if self.other_cores is not None and self.other_cores > idle + BUSY * self.n_cores:
            notes.append(f"others kept {self.other_cores:.1f} of {self.n_cores} cores busy")
        return "; ".join(notes)


def read_timings(finished: Finished) -> Timings:
    """Return what a session measured."""
    return Timings.model_validate_json(finished.path(LATENCY_FILE).read_bytes())
