"""What a sweep is asked for, and how it ended."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spar_bench.results import Row
from spar_bench.store import DEFAULT_ROOT


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep runs; none of it affects a number.

    `n_seeds` overrides the spec's seeds by 0, 1, ...; `only` names trials; `tracking_uri` is an
    MLflow URI, by default the environment's, then `mlflow.db` in the working directory; `workers`
    processes render distillation images in advance, by default some with a GPU. `retime` measures
    latency though it was measured, as on a loaded machine. `devices` each get a worker process that
    makes stages beside the others, or `jobs` on one device do; `on` is a Ray cluster whose GPUs do,
    by its address, or `ray` for one of this machine; `processes` of them train a student together.
    `backend` names another way to make stages.
    """

    store: str | Path = DEFAULT_ROOT
    tracking_uri: str | None = None
    device: str = "auto"
    threads: int | None = None
    n_seeds: int | None = None
    only: str | tuple[str, ...] = ()
    retry: bool = False
    retime: bool = False
    fail_fast: bool = False
    workers: int | None = None
    devices: tuple[str, ...] = ()
    jobs: int = 1
    on: str | None = None
    processes: int = 1
    backend: str | None = None

    def __post_init__(self) -> None:
        """Refuse counts that are too low.

        Raises:
            ValueError: a count is too low.
        """
        leasts = {"n_seeds": 1, "threads": 1, "workers": 0, "jobs": 1, "processes": 1}
        for name, least in leasts.items():
            count = getattr(self, name)
            if count is not None and count < least:
                raise ValueError(
                    f"Options: {name}: must be at least {least}, but got {count}; leave it out for "
                    "the default"
                )


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended: its rows, how many stages it made now, and what failed, by fingerprint.

    A failure is the stage's kind and the reason; those of earlier sweeps that were not tried again
    are among them.
    """

    experiment: str
    rows: list[Row]
    n_made: int
    failures: dict[str, tuple[str, str]]

    @property
    def unfinished(self) -> list[Row]:
        """The rows without a number."""
        return [row for row in self.rows if row.status != "finished"]

    @property
    def trials(self) -> dict[str, bool]:
        """Whether all rows of a trial have a number, by trial name."""
        lacking = set(map(self.trial_of, self.unfinished))
        names = map(self.trial_of, self.rows)
        return {name: name not in lacking for name in names}

    def trial_of(self, row: Row) -> str:
        """Return the name of a row's trial, with its experiment where there are several."""
        return f"{row.experiment}/{row.trial}" if self._has_several else row.trial

    @cached_property
    def _has_several(self) -> bool:
        return len({row.experiment for row in self.rows}) > 1
