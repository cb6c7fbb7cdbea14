"""Find the work in the store that no spec under a folder needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spar_bench.conflicts import read_spec
from spar_bench.errors import NotReady, naming
from spar_bench.plan.trials import make_plan
from spar_bench.session.selection import points_so_far, seeds_so_far
from spar_bench.stage import Finished, canonical
from spar_bench.stages import latency
from spar_bench.store import Store


@dataclass(frozen=True)
class Unreachable:
    """What no spec needs: finished stages, unfinished work by fingerprint, and pictures."""

    finished: list[Finished]
    unfinished: dict[str, int]
    pictures_bytes: int

    @property
    def n_bytes(self) -> int:
        """Total size in bytes."""
        finished = sum(stage.n_bytes for stage in self.finished)
        return finished + sum(self.unfinished.values()) + self.pictures_bytes


def unreachable(store: Store, folder: Path) -> Unreachable:
    """Return the work that no spec under `folder` needs.

    Seeds are those last swept, and a search's points those asked for so far; timings of all
    machines are kept.

    Raises:
        SpecError: a spec has mistakes, so what it needs is unknown and nothing is deleted.
        NotReady: there is no spec, or one needs data that is missing.
        DataError: the same of data that cannot be read. Each line begins with its spec's path.
    """
    paths = sorted(path for ending in ("yaml", "yml") for path in folder.rglob(f"*.{ending}"))
    if not paths:
        raise NotReady(f"{folder}: must hold specs, but has no YAML file; name their folder")
    reached: set[str] = set()
    wanted: set[str] = set()
    for path in paths:
        with naming(path):
            loaded = read_spec(path)
            plan = make_plan(points_so_far(loaded, store), seeds_so_far(loaded, store), None)
        wanted |= plan.stages.keys()
        for fingerprint, stage in plan.stages.items():
            timed = isinstance(stage, latency.Stage)
            reached.add(_timed(stage.to_json()) if timed else fingerprint)
    return Unreachable(
        [stage for stage in store.finished() if _key(stage) not in reached],
        {key: size for key, size in store.unfinished().items() if key not in wanted},
        store.pictures_bytes(),
    )


def _key(stage: Finished) -> str:
    """Return what a stage is reached by: timings of all machines by what they time."""
    return _timed(stage.manifest) if stage.kind == "latency" else stage.fingerprint


def _timed(session: dict[str, Any]) -> str:
    return canonical(session["settings"]["timed"])
