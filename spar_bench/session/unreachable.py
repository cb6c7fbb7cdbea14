"""Find the work in the store that no spec under a folder needs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spar_bench import registry
from spar_bench.conflicts import read_spec
from spar_bench.errors import DataError, DataFileError, NotReady, naming
from spar_bench.files import YAML_ENDINGS
from spar_bench.plan.making import make_plan
from spar_bench.plan.suite import SuitePlan
from spar_bench.plan.trials import Plan
from spar_bench.session.selection import points_so_far, seeds_so_far
from spar_bench.spec import Point
from spar_bench.stage import Finished, canonical
from spar_bench.stages import latency
from spar_bench.store import Store

Backbones = set[frozenset[str]]
"""The plug-ins that a backbone is made of, for each of several."""


@dataclass(frozen=True)
class Unreachable:
    """What no spec needs: finished stages, unfinished work by fingerprint, and pictures.

    `incomplete` says of each spec whose weights or data are missing what that is: what it needs is
    known only roughly, and nothing that it may need is listed.
    """

    finished: list[Finished]
    unfinished: dict[str, int]
    pictures_bytes: int
    incomplete: dict[Path, str]

    @property
    def n_bytes(self) -> int:
        """Total size in bytes."""
        finished = sum(stage.n_bytes for stage in self.finished)
        return finished + sum(self.unfinished.values()) + self.pictures_bytes


def unreachable(store: Store, folder: Path) -> Unreachable:
    """Return the work that no spec under `folder` needs.

    Seeds are those last swept, and a search's points those asked for so far; timings of all
    machines are kept, those of a folder that was swept as a whole too, and so is what no spec can
    name: stages of another package's kind. A spec whose weights or data are missing may need every
    stage of its backbones, every stage that states none, and all unfinished work.

    Raises:
        SpecError: a spec has mistakes, so what it needs is unknown and nothing is deleted.
        NotReady: there is no spec.
        DataFileError: a data file that a spec names is invalid; the line begins with the spec.
    """
    reached, wanted, suites = set[str](), set[str](), dict[Path, dict[str, Plan]]()
    incomplete, backbones = dict[Path, str](), Backbones()
    for path in _specs(folder):
        with naming(path):
            loaded = read_spec(path)
            points, seeds = points_so_far(loaded, store), seeds_so_far(loaded, store)
            try:
                plan = make_plan(points, seeds, None)
            except DataFileError:
                raise
            except (NotReady, DataError) as error:
                incomplete[path] = str(error)
                backbones |= _backbones(points)
                continue
        wanted |= plan.stages.keys()
        reached |= _reached(plan)
        if not loaded.search and plan.latency is not None:
            suites.setdefault(path.parent, {})[loaded.experiment] = plan
    for plans in suites.values():
        reached |= _reached(SuitePlan(plans).whole)
    finished = [one for one in _own(store) if _key(one) not in reached]
    unfinished = {key: size for key, size in store.unfinished().items() if key not in wanted}
    if incomplete:
        finished, unfinished = [one for one in finished if _is_of_other(one, backbones)], {}
    return Unreachable(finished, unfinished, store.pictures_bytes(), incomplete)


def _specs(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in YAML_ENDINGS)
    if not paths:
        raise NotReady(f"{folder}: must hold specs, but has no YAML file; name their folder")
    return paths


def _reached(plan: Plan) -> set[str]:
    """Return what a plan's stages are reached by."""
    return {
        _timed(stage.to_json()) if isinstance(stage, latency.Stage) else fingerprint
        for fingerprint, stage in plan.stages.items()
    }


def _own(store: Store) -> Iterator[Finished]:
    """Yield the finished stages of this package's kinds."""
    kinds = registry.modules("stages")
    for stage in store.finished():
        if kinds.get(stage.kind, "").startswith("spar_bench."):
            yield stage


def _key(stage: Finished) -> str:
    """Return what a stage is reached by: timings of all machines by what they time."""
    return _timed(stage.manifest) if stage.kind == "latency" else stage.fingerprint


def _timed(session: Mapping[str, Any]) -> str:
    return canonical(session["settings"]["timed"])


def _backbones(points: Iterable[Point]) -> Backbones:
    names = {point.settings.backbone.name for point in points}
    return {frozenset(registry.identity("backbones", name).versions) for name in names}


def _is_of_other(stage: Finished, backbones: Backbones) -> bool:
    """Return whether a stage states a backbone, and it is none of these."""
    settings = stage.manifest["settings"]
    identity = settings.get("backbone", settings.get("text_tower", {}))
    return "versions" in identity and frozenset(identity["versions"]) not in backbones
