"""What sweeps do now, for other terminals: each writes a file into its store every few seconds.

It is `<store>/progress/<owner>.json`, there as long as the sweep uses the store. What a killed one
leaves is known by its lease, on another host after minutes, and deleted by the next sweep.
"""

import os
import platform
import time
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from spar_bench.errors import SparBenchError
from spar_bench.files import read_json, replace_text
from spar_bench.leases import LEASE_S
from spar_bench.session.tally import Tally
from spar_bench.store import Store
from spar_bench.validation import Part

EVERY_S = 3.0
SILENT_S = 3 * LEASE_S
"""Age of a file whose sweep counts as dead, if it ran on another host; clocks differ little."""


class Work(Part):
    """What one worker does; as `Doing`, in names."""

    kind: str
    trials: str
    node: str
    device: str
    share: float
    helps: bool
    seconds_left: float | None


class Progress(Part):
    """How far a sweep has come, by whom, and what its workers do."""

    sweep: str
    host: str
    pid: int
    n_done: int
    n_stages: int
    n_failed: int
    seconds_left: float | None
    work: list[Work]


class Beacon:
    """Writes the progress of one sweep; never the reason that it fails."""

    def __init__(self, sweep: str) -> None:
        self._sweep = sweep
        self._path: Path | None = None
        self._shown_at = 0.0

    def begin(self, store: Store) -> None:
        """Take the store, and delete what killed sweeps have left."""
        self._path = _folder(store) / f"{store.leases.owner}.json"
        with suppress(OSError, SparBenchError):
            for path in _folder(store).glob("*.json"):
                if path != self._path and not _is_alive(store, path):
                    path.unlink()

    def show(self, tally: Tally) -> None:
        """Write how far the sweep has come, if that was long ago."""
        if self._path is None or time.monotonic() - self._shown_at < EVERY_S:
            return
        self._shown_at = time.monotonic()
        work = [
            Work(
                kind=one.stage.kind,
                trials=one.trials,
                node=one.node,
                device=one.device,
                share=one.share,
                helps=one.helps,
                seconds_left=one.seconds_left,
            )
            for one in tally.doing.values()
        ]
        progress = Progress(
            sweep=self._sweep,
            host=platform.node(),
            pid=os.getpid(),
            n_done=len(tally.done),
            n_stages=len(tally.plan.stages),
            n_failed=len(tally.lost["failed"]),
            seconds_left=tally.seconds_left(),
            work=work,
        )
        with suppress(SparBenchError):
            replace_text(self._path, progress.model_dump_json())

    def end(self) -> None:
        """Delete the file."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def running(store: Store) -> list[Progress]:
    """Return the progress of all sweeps that use a store now, as far as they have said."""
    found = list[Progress]()
    for path in sorted(_folder(store).glob("*.json")):
        with suppress(SparBenchError, ValidationError):
            if _is_alive(store, path):
                found.append(Progress.model_validate(read_json(path)))
    return found


def _is_alive(store: Store, path: Path) -> bool:
    """Return whether the sweep that wrote a file uses the store, as far as is seen now."""
    lease = store.lease_of_use(path.stem)
    if not store.leases.is_held(lease.name):
        return False
    with suppress(FileNotFoundError):
        return time.time() - lease.stat().st_mtime < SILENT_S
    return False


def _folder(store: Store) -> Path:
    return store.root / "progress"
