"""The output of a sweep: each trial as MLflow shows it, and the results for a report."""

from pathlib import Path
from typing import Any

from spar_bench import report
from spar_bench.evaluations import StoredEvaluations
from spar_bench.files import replace_text, writing
from spar_bench.plan.trials import Trial
from spar_bench.results import Results, Row, TrialRecord
from spar_bench.session.collect import Collector, flat, provenance
from spar_bench.session.per_class import per_class_csv
from spar_bench.spec.keys import PLUGINS
from spar_bench.stage import Finished, digest
from spar_bench.stages.evaluate import read_features, read_preview
from spar_bench.stages.student import read_curve
from spar_bench.store import Store

_PANEL = "panel.png"
_DRAWN = 1
"""Increased when a trial's pictures are drawn differently: those in the store are then redrawn."""


def trial_record(collector: Collector, trial: Trial) -> TrialRecord:
    """Return a trial as MLflow shows it; its pictures are drawn once and kept in the store."""
    rows, state = collector.rows(trial), collector.trial_state(trial)
    made = [
        found.manifest["made"]
        for fingerprint in sorted(collector.plan.of_trial(trial))
        if (found := collector.state(fingerprint).finished) is not None
    ]
    return TrialRecord(
        trial=trial.name,
        group=trial.group,
        seed=trial.seed,
        status=state.status,
        reason=state.reason,
        params=_params(trial),
        rows=rows,
        curve=_curve(collector, trial),
        started_ms=min((one["started_ms"] for one in made), default=0),
        ended_ms=max((one["ended_ms"] for one in made), default=0),
        artifacts=_artifacts(collector, trial, rows),
    )


def _params(trial: Trial) -> dict[str, Any]:
    """Return a trial's settings under the keys of a spec: `student.loss` for a plug-in's name."""
    settings = flat(trial.settings.model_dump(mode="json"))
    return {
        plugin if plugin in PLUGINS and last == "name" else key: value
        for key, value in settings.items()
        for plugin, _, last in [key.rpartition(".")]
    }


def results(
    collector: Collector,
    *,
    question: str,
    spec_hash: str,
    seeds: list[int],
    objectives: dict[str, dict[str, float]],
) -> Results:
    """Return everything that a report shows about a sweep."""
    plan = collector.plan
    rows = [row for trial in plan.trials for row in collector.rows(trial)]
    return Results(
        experiment=collector.experiment,
        question=question,
        rows=rows,
        costs=[collector.cost_row(line) for line in plan.costs],
        classes=_classes(collector, plan.trials),
        provenance=provenance(
            plan, collector, spec_hash=spec_hash, seeds=seeds, fingerprints=plan.stages
        ),
        objectives=objectives,
        protocols={
            row.protocol.name: row.protocol.model_dump(mode="json")
            for trial in plan.trials
            for row in trial.rows
        },
    )


def save_for_mirror(results: Results, store: Store, folder: Path) -> None:
    """Write the files that MLflow shows of a whole sweep into `folder`: rows and classes."""
    results.save(folder)
    table = per_class_csv(results.rows, StoredEvaluations(store), results.classes)
    replace_text(folder / "per_class.csv", table)


def _curve(collector: Collector, trial: Trial) -> list[tuple[int, float, int]]:
    for row in trial.rows:
        student = collector.plan.stages[row.evaluate].inputs.get("student")
        finished = collector.state(student).finished if student else None
        if finished is not None and finished.kind == "student":
            return read_curve(finished)
    return []


def _artifacts(collector: Collector, trial: Trial, rows: list[Row]) -> dict[str, Path]:
    """Return a trial's files: per-class table; pictures of its first data set and resolution."""
    evaluations = _finished_evaluations(collector, rows)
    if not evaluations:
        return {}
    classes = _classes(collector, [trial])
    key = digest([_DRAWN, trial.name, list(evaluations), classes])
    folder = collector.store.root / "pictures" / key
    first = [
        row
        for row in rows
        if (row.dataset, row.eval_short_side_px) == (rows[0].dataset, rows[0].eval_short_side_px)
    ]
    shown = {
        row.method: evaluations[row.stages["evaluate"]]
        for row in first
        if row.stages["evaluate"] in evaluations
    }
    if shown and not (folder / _PANEL).exists():
        _draw(shown, classes[rows[0].classes], folder)
    table = per_class_csv(rows, StoredEvaluations(collector.store), classes)
    replace_text(folder / "per_class.csv", table)
    return {path.name: path for path in sorted(folder.glob("[!.]*"))}


def _draw(shown: dict[str, Finished], classes: list[str], folder: Path) -> None:
    previews = {method: read_preview(finished) for method, finished in shown.items()}
    image = next(iter(previews.values())).images[0]
    features = {method: read_features(finished) for method, finished in shown.items()}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        report.draw_pca(image, features, folder / "pca.png")
        report.draw_panel(previews, classes, folder / _PANEL)  # last: it shows that all are drawn


def _finished_evaluations(collector: Collector, rows: list[Row]) -> dict[str, Finished]:
    found = {
        row.stages["evaluate"]: collector.state(row.stages["evaluate"]).finished for row in rows
    }
    return {key: finished for key, finished in found.items() if finished is not None}


def _classes(collector: Collector, trials: list[Trial]) -> dict[str, list[str]]:
    found = {}
    for trial in trials:
        for row, planned in zip(collector.rows(trial), trial.rows, strict=True):
            data = planned.data
            found[row.classes] = data.facts.shown(data.classes, data.spec.background_threshold)
    return found
