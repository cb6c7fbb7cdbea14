"""Tell which finished stages no spec under a folder reaches."""

from pathlib import Path

from spar_bench.errors import NotReady
from spar_bench.plan.trials import make_plan
from spar_bench.session.choice import known_points, known_seeds
from spar_bench.spec import read_spec
from spar_bench.stage import Finished, canonical
from spar_bench.store import Store


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
        plan = make_plan(known_points(loaded, store), known_seeds(loaded, store), {})
        for fingerprint, stage in plan.stages.items():
            arms = stage.settings.get("arms")
            reached.add(canonical(arms) if stage.kind == "latency" else fingerprint)
    return [stage for stage in store.finished() if _key(stage) not in reached]


def _key(stage: Finished) -> str:
    if stage.manifest["kind"] == "latency":
        return canonical(stage.manifest["settings"]["arms"])
    return stage.fingerprint
