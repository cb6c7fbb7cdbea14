"""Tell which finished stages no spec under a folder reaches."""

from pathlib import Path

from spar_bench.errors import NotReady
from spar_bench.plan.trials import make_plan
from spar_bench.session.search import Searcher
from spar_bench.spec import LoadedSpec, read_spec
from spar_bench.store import Finished, Store, canonical, read_json


def unreachable(store: Store, folder: Path) -> list[Finished]:
    """Return the finished stages that no spec under `folder` calls for.

    Seeds count as they were last swept, and a search's points as far as it has gone; timings are
    kept wherever they were made.

    Raises:
        SpecError: a spec has mistakes: what it needs is not known, so nothing is deleted.
        NotReady: there is no spec, or one needs data that is missing.
    """
    paths = sorted(path for ending in ("yaml", "yml") for path in folder.rglob(f"*.{ending}"))
    if not paths:
        raise NotReady(f"{folder}: must hold specs, but has no YAML file; name their folder")
    reached: set[str] = set()
    for path in paths:
        loaded = read_spec(path)
        points = Searcher(loaded, store).past() if loaded.search else loaded.points
        for fingerprint, stage in make_plan(points, _seeds(loaded, store), {}).stages.items():
            arms = stage.settings.get("arms")
            reached.add(canonical(arms) if stage.kind == "latency" else fingerprint)
    return [stage for stage in store.finished() if _key(stage) not in reached]


def _key(stage: Finished) -> str:
    if stage.manifest["kind"] == "latency":
        return canonical(stage.manifest["settings"]["arms"])
    return stage.fingerprint


def _seeds(loaded: LoadedSpec, store: Store) -> list[int]:
    path = store.root / "results" / loaded.experiment / "results.json"
    swept = read_json(path)["provenance"]["seeds"] if path.exists() else []
    return sorted({*loaded.spec.seeds, *swept})
