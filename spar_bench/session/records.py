"""The results of a sweep, read from the store."""

from collections.abc import Iterable, Sequence

from spar_bench.plan.trials import Trial
from spar_bench.results import Results
from spar_bench.session.collect import Collector, provenance
from spar_bench.spec import LoadedSpec


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
    fingerprints = set(plan.stages)
    if trials is not None:
        fingerprints = set[str]().union(*(plan.of_trial(trial) for trial in trials))
    shown = plan.trials if trials is None else trials
    return Results(
        experiment=collector.experiment,
        question=loaded.spec.question,
        rows=[row for trial in shown for row in collector.rows(trial)],
        costs=[collector.cost_row(line) for line in plan.costs if trials is None],
        classes=_classes(collector, shown),
        provenance=provenance(
            plan,
            collector,
            spec_hash=spec_hash,
            seeds=seeds,
            fingerprints=[each for each in plan.stages if each in fingerprints],
        ),
        objectives=objectives,
        protocols={
            row.protocol.name: row.protocol.model_dump(mode="json")
            for trial in shown
            for row in trial.rows
        },
        spec=loaded.text,
        settings={trial.group: trial.settings.model_dump(mode="json") for trial in shown},
    )


def _classes(collector: Collector, trials: Iterable[Trial]) -> dict[str, list[str]]:
    found = {}
    for trial in trials:
        for row, planned in zip(collector.rows(trial), trial.rows, strict=True):
            data = planned.data
            found[row.classes] = data.facts.shown(data.classes, data.spec.background_threshold)
    return found
