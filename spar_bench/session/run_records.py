"""The runs that MLflow shows of a sweep, from its results and the store."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from spar_bench import report
from spar_bench.evaluations import StoredEvaluations
from spar_bench.files import replace_text, writing
from spar_bench.results import Results, Row, Status
from spar_bench.session.per_class import per_class_csv
from spar_bench.spec.keys import PLUGINS
from spar_bench.stage import digest
from spar_bench.stages.student import read_curve
from spar_bench.store import Store
from spar_bench.track import Details, RunRecord, Runs, Shown
from spar_bench.values import METHODS

PER_CLASS_FILE = "per_class.csv"
_PANEL_FILE = "panel.png"
_DRAWN = 2
"""Increased when a run's pictures are drawn differently: those in the store are then redrawn."""

_DECIDES = {
    "pretrained": ("backbone.", "evaluate."),
    "teacher": ("backbone.", "teacher.", "evaluate."),
    "student": ("backbone.", "images.", "teacher.", "student.", "evaluate."),
    "imported": ("backbone.", "student.checkpoint", "evaluate."),
}
"""First letters of the settings that can affect a method's numbers."""
_DECIDES_NOTHING = {"evaluate.methods", "teacher.keep"}
_OF_CLASS_NAMES = {"evaluate.templates", "evaluate.logit_scale"}
_DECIDES_TARGETS = {"teacher.normalise", "teacher.precision"}


def run_records(results: Results, store: Store) -> list[RunRecord]:
    """Return the runs of a sweep: one for each method of a trial, unless it has not been run.

    A method whose evaluations several trials share, such as the single pass, is one run.
    """
    records: dict[str, RunRecord] = {}
    for methods in _rows_by_trial(results):
        main = max(methods, key=METHODS.index)
        for method, rows in methods.items():
            if _key(rows) in records or all(row.status == "skipped" for row in rows):
                continue
            # A trial's pictures show its methods side by side.
            shown = [row for each in methods.values() for row in each] if method == main else rows
            name = rows[0].trial if method == main else _name(rows[0])
            records[_key(rows)] = _record(results, store, rows, shown, name)
    return list(records.values())


def run_keys(results: Results) -> set[str]:
    """Return the keys of all runs of a sweep, including those of what has not been run."""
    return {_key(rows) for methods in _rows_by_trial(results) for rows in methods.values()}


def run_links(results: Results, shown: Shown) -> Runs:
    """Return the runs that show the methods of a sweep's trials, of those that are shown."""
    return {
        (results.experiment, rows[0].trial, method): shown.link(_key(rows))
        for methods in _rows_by_trial(results)
        for method, rows in methods.items()
        if _key(rows) in shown.runs
    }


def _rows_by_trial(results: Results) -> list[dict[str, list[Row]]]:
    """Return the rows of each trial, by method."""
    trials: dict[str, dict[str, list[Row]]] = {}
    for row in results.rows:
        trials.setdefault(row.trial, {}).setdefault(row.method, []).append(row)
    return list(trials.values())


def _key(rows: list[Row]) -> str:
    probed = [row.stages[kind] for row in rows for kind in row.probes]
    return digest([rows[0].method, *(row.stages["evaluate"] for row in rows), *probed])


def _name(row: Row) -> str:
    """Return the name of a run whose trial is named after another method."""
    return "pretrained" if row.method == "pretrained" else f"teacher stride_px={row.stride_px}"


def _record(
    results: Results, store: Store, rows: list[Row], shown: list[Row], name: str
) -> RunRecord:
    status, reason = _status(rows)
    pictured = [
        [row.trial, row.method, row.dataset, row.stages["evaluate"], results.classes[row.classes]]
        for row in shown
        if row.status == "finished"
    ]
    return RunRecord(
        key=_key(rows),
        name=name,
        trial=rows[0].trial,
        group=rows[0].group,
        seed=rows[0].seed,
        method=rows[0].method,
        status=status,
        reason=reason,
        params=_params(results.settings[rows[0].group], rows[0]),
        rows=rows,
        details_key=digest([_DRAWN, pictured, sorted(_made(results, rows))]),
        read=partial(_details, results, store, rows, shown),
    )


def _status(rows: list[Row]) -> tuple[Status, str]:
    """Return how a run ended, and why if it is not finished."""
    outcomes: tuple[Status, ...] = ("failed", "blocked", "pruned", "skipped")
    for status in outcomes:
        for row in rows:
            if row.status == status:
                return status, row.reason
    return "finished", ""


def _params(settings: dict[str, object], row: Row) -> dict[str, object]:
    """Return the settings that decide a row's number, under the keys of a spec.

    What has no value is left out.
    """
    prefixes = _DECIDES[row.method if row.checkpoint is None else "imported"]
    named = {
        plugin if plugin in PLUGINS and last == "name" else key: value
        for key, value in flat(settings).items()
        for plugin, _, last in [key.rpartition(".")]
    }
    params = {
        key: value
        for key, value in named.items()
        if key.startswith(prefixes) and key not in _DECIDES_NOTHING and value is not None
    }
    if row.method == "teacher":
        params = {key: value for key, value in params.items() if key not in _DECIDES_TARGETS}
    if row.average is None:
        params.pop("evaluate.average", None)
    if row.classifier == "linear":
        params = {k: v for k, v in params.items() if k not in _OF_CLASS_NAMES}
    if row.window_px is not None:
        params["teacher.window_px"] = row.window_px
    return params


def flat(value: Any, prefix: str = "") -> dict[str, object]:
    """Return nested settings under dotted keys; lists are not split."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        key: leaf
        for name, inner in value.items()
        for key, leaf in flat(inner, f"{prefix}.{name}" if prefix else name).items()
    }


def _made(results: Results, rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Return how each finished stage behind rows was made, timing apart, by fingerprint."""
    known, made = results.provenance["stages"], dict[str, dict[str, Any]]()
    left = [key for row in rows for role, key in row.stages.items() if role != "latency"]
    while left:
        key = left.pop()
        if key in known and key not in made:
            made[key] = known[key]["made"]
            left.extend(known[key]["inputs"].values())
    return made


def _details(results: Results, store: Store, rows: list[Row], shown: list[Row]) -> Details:
    made = _made(results, rows).values()
    return Details(
        curve=_curve(store, rows[0]),
        started_ms=min((record["started_ms"] for record in made), default=0),
        ended_ms=max((record["ended_ms"] for record in made), default=0),
        artifacts=_artifacts(results, store, shown),
    )


def _curve(store: Store, row: Row) -> list[tuple[int, float, int]]:
    student = row.stages.get("student")
    finished = store.opened("student", student) if student else None
    return [] if finished is None else read_curve(finished)


def _artifacts(results: Results, store: Store, rows: list[Row]) -> dict[str, Path]:
    """Return the files of rows, which are kept in the store: a per-class table, and pictures.

    Pictures are of the first data set and resolution; they are drawn once.
    """
    finished = [row for row in rows if row.status == "finished"]
    if not finished:
        return {}
    identity = [[r.trial, r.method, r.dataset, r.stages["evaluate"]] for r in finished]
    classes = {row.classes: results.classes[row.classes] for row in finished}
    folder = store.root / "pictures" / digest([_DRAWN, identity, classes])
    evaluations = StoredEvaluations(store)
    if not (folder / _PANEL_FILE).exists():
        place = (rows[0].dataset, rows[0].eval_short_side_px)
        first = [row for row in finished if (row.dataset, row.eval_short_side_px) == place]
        _draw(first, evaluations, results.classes[rows[0].classes], folder)
    replace_text(folder / PER_CLASS_FILE, per_class_csv(finished, evaluations, classes))
    return {path.name: path for path in sorted(folder.glob("[!.]*"))}


def _draw(
    rows: list[Row], evaluations: StoredEvaluations, classes: list[str], folder: Path
) -> None:
    keys = {row.method: row.stages["evaluate"] for row in rows}
    previews = {m: found for m, key in keys.items() if (found := evaluations.preview(key))}
    read = {method: evaluations.features(keys[method]) for method in previews}
    features = {method: found for method, found in read.items() if found is not None}
    if not previews:
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        image = next(iter(previews.values())).images[0]
        fitted_to = "teacher" if "teacher" in features else None
        report.draw_pca(image, features, folder / "pca.png", fitted_to=fitted_to)
        report.draw_panel(previews, classes, folder / _PANEL_FILE)  # last: then all are drawn
