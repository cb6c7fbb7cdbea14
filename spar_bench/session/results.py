"""The results of a sweep and where they come from, read from the store."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from spar_bench.plan.trials import Trial
from spar_bench.results import Results
from spar_bench.session.collect import Collector
from spar_bench.session.paper import matched
from spar_bench.spec import LoadedSpec
from spar_bench.stage import Finished, digest
from spar_bench.stages import evaluate, student
from spar_bench.stages.base import Stage


def results(
    collector: Collector,
    loaded: LoadedSpec,
    *,
    spec_hash: str,
    seeds: list[int],
    objectives: dict[str, dict[str, float]],
    trials: Sequence[Trial] | None = None,
) -> Results:
    """Return everything that a report shows about a sweep, or about some of its trials."""
    plan = collector.plan
    fingerprints, of_all = set(plan.stages), trials is None
    if trials is not None:
        fingerprints = set[str]().union(*(plan.of_trial(trial) for trial in trials))
    shown = plan.trials if trials is None else trials
    return Results(
        experiment=collector.experiment,
        question=loaded.spec.question,
        rows=[row for trial in shown for row in collector.rows(trial)],
        costs=list(dict.fromkeys(map(collector.cost_row, plan.costs))) if of_all else [],
        sizes=list(dict.fromkeys(map(collector.sizes_row, plan.sizes))) if of_all else [],
        classes=_classes(collector, shown),
        provenance={
            "spec_hash": spec_hash,
            "seeds": seeds,
            **_provenance(collector, fingerprints),
        },
        objectives=objectives,
        protocols={
            row.protocol.name: row.protocol.model_dump(mode="json")
            for trial in shown
            for row in trial.rows
        },
        spec=loaded.text,
        reproduces=loaded.spec.reproduces,
        matches=matched(shown, loaded.spec.reproduces) if loaded.spec.reproduces else [],
        claims=[asdict(claim) for claim in loaded.claims],
        settings={trial.group: trial.settings.model_dump(mode="json") for trial in shown},
    )


def _classes(collector: Collector, trials: Iterable[Trial]) -> dict[str, list[str]]:
    found = {}
    for trial in trials:
        for row, planned in zip(collector.rows(trial), trial.rows, strict=True):
            data = planned.data
            found[row.classes] = data.facts.shown(data.classes, data.spec.background_threshold)
    return found


def _provenance(collector: Collector, fingerprints: Collection[str]) -> dict[str, Any]:
    """Return where every number of some stages comes from, according to their manifests."""
    planned = {key: stage for key, stage in collector.plan.stages.items() if key in fingerprints}
    finished = {key: collector.state(key).finished for key in planned}
    stages = {
        key: {
            **{name: one.manifest[name] for name in ("kind", "version", "inputs", "made")},
            **_weights(planned[key], one),
        }
        for key, one in finished.items()
        if one is not None
    }
    made = [stage["made"] for stage in stages.values()]
    return {
        "commits": sorted({record["commit"] for record in made if record["commit"]}),
        "devices": sorted({record["device"] for record in made}),
        "versions": sorted({json.dumps(record["versions"]) for record in made}),
        "backbones": {
            digest(stage.settings.backbone)[:12]: stage.settings.backbone
            for stage in planned.values()
            if isinstance(stage, evaluate.Stage)
        },
        "stages": stages,
    }


def _weights(stage: Stage, finished: Finished) -> dict[str, Any]:
    """Return which backbone a stage read, by its name in the provenance, and which it trained."""
    found: dict[str, Any] = {}
    if isinstance(stage, evaluate.Stage | student.Stage):
        found["backbone"] = digest(stage.settings.backbone)[:12]
    if isinstance(stage, student.Stage):
        found["files"] = {
            name: file["sha256"]
            for name, file in finished.manifest["files"].items()
            if name.endswith(".safetensors")
        }
    return found
